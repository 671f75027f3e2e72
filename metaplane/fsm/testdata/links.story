# Hard links. The UFS has the content under one name, the home; the others are
# Orca's alone.
> mount / file:///r caps=rdox
mount 1
> mkdir /d -q
intent 1 undecided mkdir mount 1 source d target d
> decide i=1 -q
ok
> create /d/f type=cache -done
intent 2 undecided put_empty mount 1 target d/f
> decide i=2 fp=F1 -q
ok
> ln /d/f /g -v
file 12 0644 0:0 len 0 v1 PERSISTED nlink 2 fp F1 at file:///r/d/f
event EVENT_ENTRY ino 12 1/g
event EVENT_ATTR ino 12 11/f
> ln /g /d/h
file 12 0644 0:0 len 0 v1 PERSISTED nlink 3 fp F1 at file:///r/d/f
> tree /
d: dir 11 0755 0:0 entries 2 nlink 2 at file:///r/d
  f: file 12 0644 0:0 len 0 v1 PERSISTED nlink 3 fp F1 at file:///r/d/f
  h: file 12 0644 0:0 len 0 v1 PERSISTED nlink 3 fp F1 at file:///r/d/f
g: file 12 0644 0:0 len 0 v1 PERSISTED nlink 3 fp F1 at file:///r/d/f
> ln /d /e
permission denied: a directory has one name
> ln /d/f /g
exists
> ln /no /x
not found
> ln /d/f /x/y
not found
# Names of one inode: moving one over the other does nothing.
> mv /g /d/h
ok
> mv /g /d/h -n
exists
> mv /g /d/h -x
ok
# An attribute, an xattr and a new version are the inode's, by whatever name.
> xattr /d/f user.a v
ok
> chmod /g mode=0600
intent 3 undecided setattr mount 1 source d/f
> decide i=3 fp=F1
file 12 0600 0:0 len 0 v1 PERSISTED nlink 3 fp F1 at file:///r/d/f
> create /g type=cache -o
session 1 fence 1 file 12 version 2 key d/f
> create /d/f type=cache -o
busy: the file is open for writing
> complete s=1 len=5 fp=F2
file 12 0600 0:0 len 5 v2 PERSISTED nlink 3 fp F2 at file:///r/d/f
> tree /
d: dir 11 0755 0:0 entries 2 nlink 2 at file:///r/d
  f: file 12 0600 0:0 len 5 v2 PERSISTED nlink 3 fp F2 at file:///r/d/f
  h: file 12 0600 0:0 len 5 v2 PERSISTED nlink 3 fp F2 at file:///r/d/f
g: file 12 0600 0:0 len 5 v2 PERSISTED nlink 3 fp F2 at file:///r/d/f
# A sync knows the home only.
> sync / f:g:stranger
created 0 changed 0 removed 0 skipped 1
> sync / gone:g
created 0 changed 0 removed 0 skipped 1
> sync /d f:f:F3 gone:h
created 0 changed 1 removed 0 skipped 1
> tree /
d: dir 11 0755 0:0 entries 2 nlink 2 at file:///r/d
  f: file 12 0600 0:0 len 2 v3 PERSISTED nlink 3 fp F3 at file:///r/d/f
  h: file 12 0600 0:0 len 2 v3 PERSISTED nlink 3 fp F3 at file:///r/d/f
g: file 12 0600 0:0 len 2 v3 PERSISTED nlink 3 fp F3 at file:///r/d/f
# An alias goes without a word to the UFS; the home takes the content along.
> rm /d/h
ok
> mv /g /d/alias
file 12 0600 0:0 len 2 v3 PERSISTED nlink 2 fp F3 at file:///r/d/f
> mv /d/f /home
intent 4 undecided rename mount 1 source d/f target home want F3
> decide i=4
file 12 0600 0:0 len 2 v3 PERSISTED nlink 2 fp F3 at file:///r/home
> tree /
d: dir 11 0755 0:0 entries 1 nlink 2 at file:///r/d
  alias: file 12 0600 0:0 len 2 v3 PERSISTED nlink 2 fp F3 at file:///r/home
home: file 12 0600 0:0 len 2 v3 PERSISTED nlink 2 fp F3 at file:///r/home
# Before the home goes, its content is given to another name.
> rm /home
busy: the content is moving to another name of the file (rehome 12 from 1/home)
> rehome ino=0x12 dir=1 home
intent 5 undecided rename mount 1 source home target d/alias want F3
> rm /home
busy: an earlier change is still on its way to the UFS (intent 5)
> rm /d/alias
busy: an earlier change is still on its way to the UFS (intent 5)
> ln /d/alias /more
busy: an earlier change is still on its way to the UFS (intent 5)
> decide i=5
ok
> rehome ino=0x12 dir=1 home
ok
> rm /home
ok
> tree /
d: dir 11 0755 0:0 entries 1 nlink 2 at file:///r/d
  alias: file 12 0600 0:0 len 2 v3 PERSISTED fp F3 at file:///r/d/alias
> mkdir /o -q
intent 6 undecided mkdir mount 1 source o target o
> decide i=6 -q
ok
> create /o/other type=cache -done
intent 7 undecided put_empty mount 1 target o/other
> decide i=7 fp=O1 -q
ok
> ln /o/other /o/second
file 14 0644 0:0 len 0 v1 PERSISTED nlink 2 fp O1 at file:///r/o/other
# Replacing a home: the same.
> mv /d/alias /o/other
busy: the content is moving to another name of the file (rehome 14 from 13/other)
> rehome ino=0x14 dir=0x13 other
intent 8 undecided rename mount 1 source o/other target o/second want O1
> decide i=8
ok
> mv /d/alias /o/other
intent 9 undecided rename mount 1 source d/alias target o/other want F3
> decide i=9
file 12 0600 0:0 len 2 v3 PERSISTED fp F3 at file:///r/o/other
> tree /
d: dir 11 0755 0:0 entries 0 nlink 2 at file:///r/d
o: dir 13 0755 0:0 entries 2 nlink 2 at file:///r/o
  other: file 12 0600 0:0 len 2 v3 PERSISTED fp F3 at file:///r/o/other
  second: file 14 0644 0:0 len 0 v1 PERSISTED fp O1 at file:///r/o/second
# A tree with several names of a file in it goes name by name.
> ln /o/second /three
file 14 0644 0:0 len 0 v1 PERSISTED nlink 2 fp O1 at file:///r/o/second
> rm /o -r
busy: names of files with several are removed from it first (walk)
> rm /o/second -c
unsupported: the UFS has the content of other names of the file under this one
> rm /o/second
busy: the content is moving to another name of the file (rehome 14 from 13/second)
> rehome ino=0x14 dir=0x13 second
intent 10 undecided rename mount 1 source o/second target three want O1
> decide i=10
ok
> rm /o/second
ok
> rm /three -c
ok
> rm /o -r
intent 11 deferred remove_tree mount 1 source o
> state
files 1 dirs 3 sessions 0 intents 1 mounts 1 trash 1
intent 11 deferred remove_tree mount 1 source o
> tree /
d: dir 11 0755 0:0 entries 0 nlink 2 at file:///r/d
# An unmount takes all names.
> mount /n s3://n -p
mount 2
> create /n/a type=must -done
file 16 0644 0:0 len 0 v1 NOT_PERSISTED at s3://n/a
> ln /n/a /n/b
file 16 0644 0:0 len 0 v1 NOT_PERSISTED nlink 2 at s3://n/a
> ln /n/a /n/c
file 16 0644 0:0 len 0 v1 NOT_PERSISTED nlink 3 at s3://n/a
> unmount /n
mount 2
> state
files 2 dirs 4 sessions 0 intents 1 mounts 1 trash 2
intent 11 deferred remove_tree mount 1 source o
> finish i=11
ok
> sweep limit=2
more
> sweep
ok
> state
files 0 dirs 2 sessions 0 intents 0 mounts 1 trash 0
