# The mount table and what conflicts with it.
> mount / file:///r caps=rdo
mount 1
> mount / file:///other
exists: already a mount point, of file:///r
> mount / file:///r caps=rdo -u
mount 1
> mount /s3 s3://b/p
mount 2
> mount /s4 s3://b/p/q
invalid: its URI overlaps the one mounted at /s3
> mount /s4 s3://b
invalid: its URI overlaps the one mounted at /s3
> mount /s4 s3://bb -ro
mount 3
> mount /s3/in s3://c
mount 4
> mount /s3/deep/er s3://d
not found
> mount /s3/deep/er s3://d -p
mount 5
> stat /s3/x/y
missing [x y] below 11, key x/y pending 0
> stat /s3/in/x/y
missing [x y] below 13, key x/y pending 0
> mkdir /s3/in/k
intent 1 undecided mkdir mount 4 source k target k
> decide i=1
dir 16 0755 0:0 entries 0 nlink 2 at s3://c/k
> mkdir /s4/no
read-only
> create /s4/no -done
read-only
> mount /s3/in/k s3://e
exists: it would shadow a directory of the store that is mounted above
> create /s3/in/f type=must -done
file 17 0644 0:0 len 0 v1 NOT_PERSISTED at s3://c/f
> mount /s3/in/f s3://e
exists: it would shadow a file
> mv /s3/in/f /s3/f
cross-mount
> mv /s3/in /x
invalid: it is a mount point
> rm /s3 -r
invalid: it is a mount point: unmount it
> rm /s3/in -r
invalid: it is a mount point: unmount it
> unmount /s3
invalid: there is a mount point below it
> create /s3/in/g type=async -done
file 18 0644 0:0 len 0 v1 TO_BE_PERSISTED at s3://c/g
> unmount /s3/in
busy: files below it wait to be persisted
> prepare ino=0x18 v=1
intent 2 undecided persist mount 4 target g
> persisted i=2 fp=G
file 18 0644 0:0 len 0 v1 PERSISTED fp G at s3://c/g
> unmount /s3/in
mount 4
> stat /s3/in
missing [in] below 11, key in pending 0
> state
files 2 dirs 7 sessions 0 intents 0 mounts 4 trash 1
> sweep
ok
> sync / d:s3 -range
created 0 changed 0 removed 0 skipped 2
> sync / -range
created 0 changed 0 removed 0 skipped 2
> tree /
s3: dir 11 0755 0:0 entries 1 nlink 3 at s3://b/p mount
  deep: dir 14 0755 0:0 entries 1 nlink 3 at s3://b/p/deep
    er: dir 15 0755 0:0 entries 0 nlink 2 at s3://d mount
s4: dir 12 0755 0:0 entries 0 nlink 2 at s3://bb mount
> unmount /
invalid: the root mount stays
> as 5:5
> unmount /s4
permission denied
