# Group 2: what the first group has this one do while a part moves away from here:
# it is held, closed, and then it stays or has left.
> mount /a/p file:///r/a/p group=2 id=2 serial=7 part=1 mode=0750 caps=rdox
mount 2
> create /a/p/f type=cache -done
intent 562949953421313 undecided put_empty mount 2 target f
> decide i=0x2000000000001 fp=F -q
ok
> xattr /a/p user.a v
ok
# What is under way goes on; nothing new begins.
> create /a/p/w type=cache -o
session 562949953421313 fence 562949953421313 file 2000000000014 version 1 key w
> mkdir /a/p/d
intent 562949953421314 undecided mkdir mount 2 source d target d
> depart hold id=2
invalid: only the first group moves parts away from others
> as 5:5
> depart hold id=2 move=3
invalid: only the first group moves parts away from others
> as 0:0
> depart hold id=9 move=3 group=3
stale: no such mount is here any more
> depart close id=2 move=3
stale: that move is over
> depart hold id=2 move=3 group=3
intent 562949953421315 undecided regroup mount 2
> depart hold id=2 move=3 group=3
intent 562949953421315 undecided regroup mount 2
> depart close id=2 move=3
busy: a file is open for writing there
> decide i=0x2000000000002 -q
ok
> depart close id=2 move=3
busy: a file is open for writing there
> complete s=0x2000000000001 len=5 fp=W
file 2000000000014 0644 0:0 len 5 v1 PERSISTED fp W at file:///r/a/p/w pending
> mkdir /a/p/e
busy: an earlier change is still on its way to the UFS (intent 562949953421315)
> rm /a/p/f
busy: an earlier change is still on its way to the UFS (intent 562949953421315)
> pin /a/p/f
busy: it is on its way to group 3 (intent 562949953421315)
> xattr /a/p/f user.b v
busy: it is on its way to group 3 (intent 562949953421315)
> xattr /a/p user.b v
busy: it is on its way to group 3 (intent 562949953421315)
> quota /a/p inodes=10
busy: it is on its way to group 3 (intent 562949953421315)
> mv /a/p/f /a/p/g
busy: an earlier change is still on its way to the UFS (intent 562949953421315)
> sync /a/p f:new:N gone:w -range
created 0 changed 0 removed 0 skipped 5
> unmount /a/p id=2
busy: changes are on their way to its UFS (intent 562949953421315)
> unmount /a/p id=2 -empty
not empty
> decide i=0x2000000000003
not found: no undecided intent of that id
> ls /a/p
d: dir 2000000000015 0755 0:0 entries 0 nlink 2 at file:///r/a/p/d pending
f: file 2000000000013 0644 0:0 len 0 v1 PERSISTED fp F at file:///r/a/p/f pending
w: file 2000000000014 0644 0:0 len 5 v1 PERSISTED fp W at file:///r/a/p/w pending
> depart leave id=2 move=3 root=0x3000000000012
internal: BUG: what was not closed is said to be elsewhere
# Another move has to wait, and nobody reads it while it is decided where it is.
> depart hold id=2 move=4 group=3
busy: an earlier move of it is not over here yet
> depart hold id=2 move=1 group=3
stale: that move is over
> depart close id=2 move=3
ok
> depart close id=2 move=3
ok
> stat /a/p/f
busy
> stat /a/p
busy
> rm /a/p/f
busy: it is just being moved to group 3 (intent 562949953421315)
> mount /a/p file:///r/a/p group=2 id=2 serial=8 part=1 mode=0750 caps=rdox
mount 2
> reopen
> stat /a/p/f
busy
# It stays.
> depart lift id=2 move=3
ok
> depart lift id=2 move=3
ok
> stat /a/p/f
file 2000000000013 0644 0:0 len 0 v1 PERSISTED fp F at file:///r/a/p/f
> depart hold id=2 move=3 group=3
stale: that move is over
> depart close id=2 move=3
stale: that move is over
> depart lift id=2 move=5
ok
> depart hold id=2 move=4 group=3
stale: that move is over
> mkdir /a/p/e
intent 562949953421316 undecided mkdir mount 2 source e target e
> decide i=0x2000000000004 -q
ok
# It leaves.
> depart hold id=2 move=6 group=3
intent 562949953421317 undecided regroup mount 2
> depart close id=2 move=6
ok
> depart leave id=2 move=6 root=0x3000000000012 -v
event EVENT_ENTRY ino 2000000000012 2000000000011/p
event EVENT_MOUNT ino 2000000000012 2/p
effect 8 file 0 version 0 id 0 
effect 9 file 0 version 0 id 0 
effect 8 file 0 version 0 id 0 
> depart leave id=2 move=6 root=0x3000000000012
ok
> depart lift id=2 move=6
stale: no such mount is here any more
> depart hold id=2 move=7
stale: no such mount is here any more
> stat /a/p/f
referral
> mount /a/p file:///r/a/p group=2 id=2 serial=9 part=1 mode=0750 caps=rdox
stale: the mount was unmounted meanwhile
> state
files 2 dirs 5 sessions 0 intents 0 mounts 0 trash 2
> reopen
> tick s=601
> sweep
ok
> state
files 0 dirs 1 sessions 0 intents 0 mounts 0 trash 0
