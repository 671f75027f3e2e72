# Transfers, where the file is: its name is locked until the other group has decided.
> mount / file:///r caps=rdo
mount 1
> sync / f:f:abc d:d f:g:x -range -loaded
created 3 changed 0 removed 0 skipped 0
> mv / away=2000000000012/d
cross-mount
> create /n type=must -done
file 14 0644 0:0 len 0 v1 NOT_PERSISTED at file:///r/n
> mv /n away=2000000000012/n
cross-mount: only what its store has goes to another group: it is not persisted
> ln /g /h
file 13 0644 0:0 len 1 v1 PERSISTED nlink 2 fp x at file:///r/g
> mv /g away=2000000000012/g
cross-mount: a file with several names stays in its group
> as 5:5
> mv /f away=2000000000012/f
permission denied
> as root
> call client=1 seq=1
> mv /f away=2000000000012/f -v
intent 1 undecided transfer mount 1 source f want abc
# Nobody reads or changes it; a sync leaves it alone.
> stat /f
busy
> lookup ino=17
busy
> stat /f/x
busy
> chmod /f mode=0600
busy: it is on its way to a directory of another group (intent 1)
> rm /f
busy: it is on its way to a directory of another group (intent 1)
> create /f type=cache -o
busy: it is on its way to a directory of another group (intent 1)
> mv /f /e
busy: it is on its way to a directory of another group (intent 1)
> mv /f away=2000000000012/e
busy: it is on its way to a directory of another group (intent 1)
> sync / gone:f -loaded
created 0 changed 0 removed 0 skipped 1
> unmount /
invalid: the root mount stays
> reopen
> stat /f
busy
> state
files 3 dirs 2 sessions 0 intents 1 mounts 1 trash 0
intent 1 undecided transfer mount 1 source f want abc
# Refused it is as it was, and the answer is remembered.
> decide i=1 kind=4 msg=taken
exists: taken
> call client=1 seq=1
> mv /f away=2000000000012/f
exists: taken
> stat /f
file 11 0644 0:0 len 3 v1 PERSISTED fp abc at file:///r/f
# Decided it is gone, once.
> call client=1 seq=2
> mv /f away=2000000000012/f
intent 2 undecided transfer mount 1 source f want abc
> decide i=2 -v
event EVENT_ENTRY ino 11 1/f
effect 1 file 11 version 0 id 0 
> call client=1 seq=2
> mv /f away=2000000000012/f
ok
> stat /f
missing [f] below 1, key f pending 0
> sync / f:f:abc change=2 -range
created 0 changed 0 removed 2 skipped 2
> ls /
n: file 14 0644 0:0 len 0 v1 NOT_PERSISTED at file:///r/n
> state
files 1 dirs 1 sessions 0 intents 0 mounts 1 trash 0
# A name that goes is neither there nor not there, and fills no directory.
> mkdir /k
intent 3 undecided mkdir mount 1 source k target k
> decide i=3
dir 15 0755 0:0 entries 0 nlink 2 at file:///r/k
> create /k/f type=cache -done
intent 4 undecided put_empty mount 1 target k/f
> decide i=4 fp=xyz
file 16 0644 0:0 len 0 v1 PERSISTED fp xyz at file:///r/k/f
> mv /k/f away=2000000000012/f
intent 5 undecided transfer mount 1 source k/f want xyz
> mkdir /k/f
busy: it is on its way to a directory of another group (intent 5)
> mv /k/f/x /x
busy: it is on its way to a directory of another group (intent 5)
> rm /k
busy: what is in it is on its way to a directory of another group (intent 5)
> decide i=5
ok
> rm /k
intent 6 undecided remove mount 1 source k
> decide i=6
ok
> ls /
n: file 14 0644 0:0 len 0 v1 NOT_PERSISTED at file:///r/n
