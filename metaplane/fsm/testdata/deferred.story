# An object store: a rename is copied in the background, the moved names are
# read at their old keys until cut over, and the keys stay masked.
> mount / s3://b/root
mount 1
> mkdir /d -q
intent 1 undecided mkdir mount 1 source d target d
> decide i=1
dir 11 0755 0:0 entries 0 nlink 2 at s3://b/root/d
> create /d/f type=cache -done
intent 2 undecided put_empty mount 1 target d/f
> decide i=2 fp=E1
file 12 0644 0:0 len 0 v1 PERSISTED fp E1 at s3://b/root/d/f
> create /d/g type=cache -done
intent 3 undecided put_empty mount 1 target d/g
> decide i=3 fp=E2
file 13 0644 0:0 len 0 v1 PERSISTED fp E2 at s3://b/root/d/g
> create /d/m type=must -done
file 14 0644 0:0 len 0 v1 NOT_PERSISTED at s3://b/root/d/m
> mkdir /d/sub
intent 4 undecided mkdir mount 1 source d/sub target d/sub
> decide i=4
dir 15 0755 0:0 entries 0 nlink 2 at s3://b/root/d/sub
> create /d/sub/h type=cache -done
intent 5 undecided put_empty mount 1 target d/sub/h
> decide i=5 fp=E3
file 16 0644 0:0 len 0 v1 PERSISTED fp E3 at s3://b/root/d/sub/h
> mv /d /e
intent 6 deferred move mount 1 source d target e
dir 11 0755 0:0 entries 4 nlink 3 at s3://b/root/d pending
> tree /
e: dir 11 0755 0:0 entries 4 nlink 3 at s3://b/root/d pending
  f: file 12 0644 0:0 len 0 v1 PERSISTED fp E1 at s3://b/root/d/f pending
  g: file 13 0644 0:0 len 0 v1 PERSISTED fp E2 at s3://b/root/d/g pending
  m: file 14 0644 0:0 len 0 v1 NOT_PERSISTED at s3://b/root/d/m pending
  sub: dir 15 0755 0:0 entries 1 nlink 2 at s3://b/root/d/sub pending
    h: file 16 0644 0:0 len 0 v1 PERSISTED fp E3 at s3://b/root/d/sub/h pending
> stat /d/new
missing [d new] below 1, key d/new pending 6
> create /d/new type=must -done
not found
> create /e/new type=must -done
busy: an earlier change is still on its way to the UFS (intent 6)
> mv /e/f /k
busy: an earlier change is still on its way to the UFS (intent 6)
> rm /e/g
busy: an earlier change is still on its way to the UFS (intent 6)
> mkdir /d
busy: an earlier change is still on its way to the UFS (intent 6)
> chmod /e/f mode=0600
file 12 0600 0:0 len 0 v1 PERSISTED fp E1 at s3://b/root/d/f pending
> sync / d:d -range
created 0 changed 0 removed 0 skipped 2
> cutover i=6 ino=0x12 want=XX fp=N1
stale: the file has changed since it was copied
> cutover i=6 ino=0x12 want=E1 fp=N1
file 12 0600 0:0 len 0 v1 PERSISTED fp N1 at s3://b/root/e/f pending
> tree /
e: dir 11 0755 0:0 entries 4 nlink 3 at s3://b/root/d pending
  f: file 12 0600 0:0 len 0 v1 PERSISTED fp N1 at s3://b/root/e/f pending
  g: file 13 0644 0:0 len 0 v1 PERSISTED fp E2 at s3://b/root/d/g pending
  m: file 14 0644 0:0 len 0 v1 NOT_PERSISTED at s3://b/root/d/m pending
  sub: dir 15 0755 0:0 entries 1 nlink 2 at s3://b/root/d/sub pending
    h: file 16 0644 0:0 len 0 v1 PERSISTED fp E3 at s3://b/root/d/sub/h pending
> reopen
> tree /
e: dir 11 0755 0:0 entries 4 nlink 3 at s3://b/root/d pending
  f: file 12 0600 0:0 len 0 v1 PERSISTED fp N1 at s3://b/root/e/f pending
  g: file 13 0644 0:0 len 0 v1 PERSISTED fp E2 at s3://b/root/d/g pending
  m: file 14 0644 0:0 len 0 v1 NOT_PERSISTED at s3://b/root/d/m pending
  sub: dir 15 0755 0:0 entries 1 nlink 2 at s3://b/root/d/sub pending
    h: file 16 0644 0:0 len 0 v1 PERSISTED fp E3 at s3://b/root/d/sub/h pending
> finish i=6
ok
> tree /
e: dir 11 0755 0:0 entries 4 nlink 3 at s3://b/root/e
  f: file 12 0600 0:0 len 0 v1 PERSISTED fp N1 at s3://b/root/e/f
  g: file 13 0644 0:0 len 0 v1 PERSISTED fp E2 at s3://b/root/e/g
  m: file 14 0644 0:0 len 0 v1 NOT_PERSISTED at s3://b/root/e/m
  sub: dir 15 0755 0:0 entries 1 nlink 2 at s3://b/root/e/sub
    h: file 16 0644 0:0 len 0 v1 PERSISTED fp E3 at s3://b/root/e/sub/h
> mv /e/f /k
intent 7 deferred move mount 1 source e/f target k want N1
file 12 0600 0:0 len 0 v1 PERSISTED fp N1 at s3://b/root/e/f pending
> stat /k
file 12 0600 0:0 len 0 v1 PERSISTED fp N1 at s3://b/root/e/f pending moved
> cutover i=7 ino=0x12 want=N1 fp=N9
file 12 0600 0:0 len 0 v1 PERSISTED fp N9 at s3://b/root/k pending
> finish i=7
ok
> stat /k
file 12 0600 0:0 len 0 v1 PERSISTED fp N9 at s3://b/root/k

# what is not in the store is renamed at once; what it replaces must go first
> mv /e/m /e/n
file 14 0644 0:0 len 0 v1 NOT_PERSISTED at s3://b/root/e/n
> mv /e/n /k
intent 8 undecided remove mount 1 source k target e/n want N9
> decide i=8
file 14 0644 0:0 len 0 v1 NOT_PERSISTED at s3://b/root/k
> tree /
e: dir 11 0755 0:0 entries 2 nlink 3 at s3://b/root/e
  g: file 13 0644 0:0 len 0 v1 PERSISTED fp E2 at s3://b/root/e/g
  sub: dir 15 0755 0:0 entries 1 nlink 2 at s3://b/root/e/sub
    h: file 16 0644 0:0 len 0 v1 PERSISTED fp E3 at s3://b/root/e/sub/h
k: file 14 0644 0:0 len 0 v1 NOT_PERSISTED at s3://b/root/k
