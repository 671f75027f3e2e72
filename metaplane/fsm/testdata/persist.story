# Persisting in the background, handed to the hosted machine in the same apply.
> mount / s3://b caps=
mount 1
> create /a/b/f type=async -p -v
session 1 fence 1 file 13 version 1 key a/b/f
event EVENT_ENTRY ino 11 1/a
event EVENT_ENTRY ino 12 11/b
> complete s=1 len=3 -v
file 13 0644 0:0 len 3 v1 TO_BE_PERSISTED at s3://b/a/b/f
event EVENT_ENTRY ino 13 12/f
effect 10 file 0 version 0 id 0 jobs
> hosted jobs x
value "x keys=2"
> stat /a
dir 11 0755 0:0 entries 1 nlink 3 at s3://b/a
> prepare ino=0x13 v=2
stale: the file has changed or is persisted
> prepare ino=0x13 v=1
intent 1 undecided persist mount 1 target a/b/f
> prepare ino=0x13 v=1
intent 1 undecided persist mount 1 target a/b/f
> create /a/b/f type=cache -o
busy: an earlier change is still on its way to the UFS (intent 1)
> rm /a/b/f
busy: an earlier change is still on its way to the UFS (intent 1)
> mv /a /z
busy: an earlier change is still on its way to the UFS (intent 1)
> persisted i=1 fp=P -v
file 13 0644 0:0 len 3 v1 PERSISTED fp P at s3://b/a/b/f
event EVENT_ATTR ino 13 12/f
effect 3 file 13 version 1 id 0 
> persisted i=1 fp=P
stale: the persist intent is over
> stat /a/b/f
file 13 0644 0:0 len 3 v1 PERSISTED fp P at s3://b/a/b/f
> stat /a
dir 11 0755 0:0 entries 1 nlink 3 at s3://b/a
> create /n type=must -done
file 14 0644 0:0 len 0 v1 NOT_PERSISTED at s3://b/n
> persist /n
file 14 0644 0:0 len 0 v1 TO_BE_PERSISTED at s3://b/n
> persist /n
file 14 0644 0:0 len 0 v1 TO_BE_PERSISTED at s3://b/n
> lost ino=0x14
ok
> create /l type=must
session 2 fence 2 file 15 version 1 key l
> complete s=2 len=4
file 15 0644 0:0 len 4 v1 NOT_PERSISTED at s3://b/l
> lost ino=0x15
ids [21]
> stat /l
file 15 0644 0:0 len 4 v1 LOST at s3://b/l
> persist /l
lost
> prepare ino=0x14 v=1
intent 2 undecided persist mount 1 target n
> persisted i=2
ok
> prepare ino=0x14 v=1
intent 3 undecided persist mount 1 target n
> state
files 3 dirs 3 sessions 0 intents 1 mounts 1 trash 0
intent 3 undecided persist mount 1 target n
> worker nodeA
ok
> worker nodeA id=1
ok
> worker nodeB
ok
> fact cluster abc -absent
value "abc"
> fact cluster def -absent
value "abc"
> xattr /n user.k v
ok
> xattr /n user.k v -create
exists: the attribute exists
> xattr /n user.q v -replace
no data
> xattr /n user.k -remove
ok
> xattr /n user.k -remove
no data
> pin /l -v
file 15 0644 0:0 len 4 v1 LOST at s3://b/l pinned
event EVENT_ATTR ino 15 1/l
effect 4 file 15 version 1 id 0 
# Nobody knows whether the commit took effect: the key is held until it has been
# looked at, and what is there belongs to the file from then on.
> create /u/f type=async -p
session 3 fence 3 file 17 version 1 key u/f
> complete s=3 len=3
file 17 0644 0:0 len 3 v1 TO_BE_PERSISTED at s3://b/u/f
> prepare ino=0x17
intent 4 undecided persist mount 1 target u/f
> persisted i=4 -unsure -v
effect 6 file 0 version 0 id 4 
> prepare ino=0x17
busy: an earlier change is still on its way to the UFS (intent 4)
> rm /u/f
busy: an earlier change is still on its way to the UFS (intent 4)
> sync /u f:f:3:Q
created 0 changed 0 removed 0 skipped 1
> sync /u f:f:3:Q intent=4
created 0 changed 0 removed 0 skipped 0
> persisted i=4
ok
> stat /u/f
file 17 0644 0:0 len 3 v1 TO_BE_PERSISTED at s3://b/u/f
> stat /u
dir 16 0755 0:0 entries 1 nlink 2 at s3://b/u
> rm /u/f
intent 5 undecided remove mount 1 source u/f want 3
> decide i=5
ok
> rm /u
intent 6 undecided remove mount 1 source u
# Its worker comes back before it was looked at: what it says is true.
> create /w type=async
session 4 fence 4 file 18 version 1 key w
> complete s=4 len=3
file 18 0644 0:0 len 3 v1 TO_BE_PERSISTED at s3://b/w
> prepare ino=0x18
intent 7 undecided persist mount 1 target w
> persisted i=7 -unsure
ok
> persisted i=7 fp=W
file 18 0644 0:0 len 3 v1 PERSISTED fp W at s3://b/w
