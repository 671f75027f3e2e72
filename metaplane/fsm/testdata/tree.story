# Names without a UFS: make, list, move, remove, and the errors of POSIX.
> mkdir /a
dir 11 0755 0:0 entries 0 nlink 2
> mkdir /a
exists
> mkdir /a -x
dir 11 0755 0:0 entries 0 nlink 2
> mkdir /x/y/z
not found
> mkdir /x/y/z -p
dir 14 0755 0:0 entries 0 nlink 2
> create /a/f -done
file 15 0644 0:0 len 0 v1 NOT_PERSISTED
> create /a/f -done
exists
> create /a/f -done -o
file 15 0644 0:0 len 0 v2 NOT_PERSISTED
> create /a/f/g -done
not a directory
> create /a -done -o
is a directory
> create /a/l link=../x
link 16 0644 0:0 len 4 v1 NOT_PERSISTED -> ../x
> mkdir /a/f
exists
> ls /a
f: file 15 0644 0:0 len 0 v2 NOT_PERSISTED
l: link 16 0644 0:0 len 4 v1 NOT_PERSISTED -> ../x
> stat /a
dir 11 0755 0:0 entries 2 nlink 2
> stat /a/nope/more
missing [nope more] below 11, key  pending 0
> stat /a/f/more
not a directory

# rename
> mv /a/f /a/g
file 15 0644 0:0 len 0 v2 NOT_PERSISTED
> mv /a/g /x/y/z/g
file 15 0644 0:0 len 0 v2 NOT_PERSISTED
> mv /x /x/y/z
invalid: a directory cannot be moved below itself
> mv /x /a/x
dir 12 0755 0:0 entries 1 nlink 3
> mv /a/l /a/x -n
exists
> mkdir /e
dir 17 0755 0:0 entries 0 nlink 2
> mv /e /a
not empty
> mv /a/l /e
is a directory
> mv /e /a/l
not a directory
> mkdir /empty
dir 18 0755 0:0 entries 0 nlink 2
> mv /e /empty
dir 17 0755 0:0 entries 0 nlink 2
> mv /empty /empty
ok
> tree /
a: dir 11 0755 0:0 entries 2 nlink 3
  l: link 16 0644 0:0 len 4 v1 NOT_PERSISTED -> ../x
  x: dir 12 0755 0:0 entries 1 nlink 3
    y: dir 13 0755 0:0 entries 1 nlink 3
      z: dir 14 0755 0:0 entries 1 nlink 2
        g: file 15 0644 0:0 len 0 v2 NOT_PERSISTED
empty: dir 17 0755 0:0 entries 0 nlink 2

# remove
> rm /a/x
not empty
> rm /a/x want=1
is a directory
> rm /a/l want=2
not a directory
> rm /a/l
ok
> rm /a/l
not found
> rm /a/x -r
ok
> state
files 1 dirs 6 sessions 0 intents 0 mounts 0 trash 1
> sweep limit=2
more
> sweep
ok
> state
files 0 dirs 3 sessions 0 intents 0 mounts 0 trash 0
> rm /
invalid: the root cannot be removed
> tree /
a: dir 11 0755 0:0 entries 0 nlink 2
empty: dir 17 0755 0:0 entries 0 nlink 2
> reopen
> tree /
a: dir 11 0755 0:0 entries 0 nlink 2
empty: dir 17 0755 0:0 entries 0 nlink 2
> state
files 0 dirs 3 sessions 0 intents 0 mounts 0 trash 0
