# A store that renames atomically and keeps owners (a local folder): each
# mutation of what it holds is decided by it first.
> mount / file:///r caps=rdo
mount 1
> mkdir /a
intent 1 undecided mkdir mount 1 source a target a
> stat /a
missing [a] below 1, key a pending 1
> mkdir /a
busy: an earlier change is still on its way to the UFS (intent 1)
> mkdir /b
intent 2 undecided mkdir mount 1 source b target b
> decide i=1
dir 11 0755 0:0 entries 0 nlink 2 at file:///r/a
> decide i=2
dir 12 0755 0:0 entries 0 nlink 2 at file:///r/b
> decide i=2
not found: no undecided intent of that id
> mkdir /x/y/z -p
intent 3 undecided mkdir mount 1 source x target x/y/z
> create /x/f type=cache -done
not found
> decide i=3 kind=8 msg=refused
permission denied: refused
> stat /x
missing [x] below 1, key x pending 0
> create /a/f type=cache -done
intent 4 undecided put_empty mount 1 target a/f
> stat /a/f
missing [f] below 11, key a/f pending 4
> decide i=4 fp=F0
file 13 0644 0:0 len 0 v1 PERSISTED fp F0 at file:///r/a/f
> stat /a/f
file 13 0644 0:0 len 0 v1 PERSISTED fp F0 at file:///r/a/f
> create /a/m type=must -done
file 14 0644 0:0 len 0 v1 NOT_PERSISTED at file:///r/a/m

# chmod is decided below for what is there, and is Orca's alone for what is not
> chmod /a/f mode=0600
intent 5 undecided setattr mount 1 source a/f
> create /a/g type=must -done
file 15 0644 0:0 len 0 v1 NOT_PERSISTED at file:///r/a/g
> chmod /a/f mode=0644
busy: an earlier change is still on its way to the UFS (intent 5)
> mv /a /c
busy: an earlier change is still on its way to the UFS (intent 5)
> decide i=5
file 13 0600 0:0 len 0 v1 PERSISTED fp F0 at file:///r/a/f
> chmod /a/m mode=0600
file 14 0600 0:0 len 0 v1 NOT_PERSISTED at file:///r/a/m
> touch /a/f t=77
intent 6 undecided setattr mount 1 source a/f
> decide i=6 fp=F1
file 13 0600 0:0 len 0 v1 PERSISTED fp F1 at file:///r/a/f
> stat /a/f
file 13 0600 0:0 len 0 v1 PERSISTED fp F1 at file:///r/a/f

# rename
> mv /a/f /b/f
intent 7 undecided rename mount 1 source a/f target b/f want F1
> stat /a/f
file 13 0600 0:0 len 0 v1 PERSISTED fp F1 at file:///r/a/f pending
> rm /a/f
busy: an earlier change is still on its way to the UFS (intent 7)
> create /b/f type=must -done
busy: an earlier change is still on its way to the UFS (intent 7)
> decide i=7
file 13 0600 0:0 len 0 v1 PERSISTED fp F1 at file:///r/b/f
> tree /
a: dir 11 0755 0:0 entries 2 nlink 2 at file:///r/a
  g: file 15 0644 0:0 len 0 v1 NOT_PERSISTED at file:///r/a/g
  m: file 14 0600 0:0 len 0 v1 NOT_PERSISTED at file:///r/a/m
b: dir 12 0755 0:0 entries 1 nlink 2 at file:///r/b
  f: file 13 0600 0:0 len 0 v1 PERSISTED fp F1 at file:///r/b/f
> mv /a/m /b/f
intent 8 undecided remove mount 1 source b/f target a/m want F1
> rm /a/m
busy: an earlier change is still on its way to the UFS (intent 8)
> decide i=8
file 14 0600 0:0 len 0 v1 NOT_PERSISTED at file:///r/b/f
> tree /
a: dir 11 0755 0:0 entries 1 nlink 2 at file:///r/a
  g: file 15 0644 0:0 len 0 v1 NOT_PERSISTED at file:///r/a/g
b: dir 12 0755 0:0 entries 1 nlink 2 at file:///r/b
  f: file 14 0600 0:0 len 0 v1 NOT_PERSISTED at file:///r/b/f
> mv /b /a/b
intent 9 undecided rename mount 1 source b target a/b
> decide i=9
dir 12 0755 0:0 entries 1 nlink 2 at file:///r/a/b
> mv /a /a2
intent 10 undecided rename mount 1 source a target a2
> reopen
> state
files 2 dirs 3 sessions 0 intents 1 mounts 1 trash 0
intent 10 undecided rename mount 1 source a target a2
> decide i=10 kind=13 msg=down
unavailable: down
> tree /
a: dir 11 0755 0:0 entries 2 nlink 3 at file:///r/a
  b: dir 12 0755 0:0 entries 1 nlink 2 at file:///r/a/b
    f: file 14 0600 0:0 len 0 v1 NOT_PERSISTED at file:///r/a/b/f
  g: file 15 0644 0:0 len 0 v1 NOT_PERSISTED at file:///r/a/g

# remove: one call for a file or an empty directory, an intent for a tree
> rm /a/b/f
ok
> rm /a/g
ok
> create /a/h type=cache -done
intent 11 undecided put_empty mount 1 target a/h
> decide i=11 fp=H
file 16 0644 0:0 len 0 v1 PERSISTED fp H at file:///r/a/h
> rm /a/h
intent 12 undecided remove mount 1 source a/h want H
> decide i=12
ok
> mkdir /e
intent 13 undecided mkdir mount 1 source e target e
> decide i=13
dir 17 0755 0:0 entries 0 nlink 2 at file:///r/e
> rm /e
intent 14 undecided remove mount 1 source e
> create /e/f type=must -done
busy: an earlier change is still on its way to the UFS (intent 14)
> decide i=14
ok
> ls /
a: dir 11 0755 0:0 entries 1 nlink 3 at file:///r/a
> rm /a -r
intent 15 deferred remove_tree mount 1 source a
> mkdir /a
busy: an earlier change is still on its way to the UFS (intent 15)
> ls /
(empty)
> finish i=15
ok
> mkdir /a
intent 16 undecided mkdir mount 1 source a target a
> decide i=16
dir 18 0755 0:0 entries 0 nlink 2 at file:///r/a
> sweep
ok
> tree /
a: dir 18 0755 0:0 entries 0 nlink 2 at file:///r/a
> state
files 0 dirs 2 sessions 0 intents 0 mounts 1 trash 0
