# Group 2: parts have the mode and owner of their directories, and are forgotten for
# ever only if they are empty, where that is asked for.
> mount /a/p file:///r/a/p group=2 id=2 serial=7 part=1 mode=0750 uid=5 caps=rdox
mount 2
> stat /a/p
dir 2000000000012 0750 5:0 entries 0 nlink 2 at file:///r/a/p mount
> mkdir /a/p/q group=3
unsupported: what lives in a group of its own is not divided further: only directories of mounts of the first group are
> mkdir /a/p group=2 -x
dir 2000000000012 0750 5:0 entries 0 nlink 2 at file:///r/a/p mount
> mkdir /a/p group=3 -x
exists: it is there already, and lives in group 2
> create /a/p/f type=must -done
file 2000000000013 0644 0:0 len 0 v1 NOT_PERSISTED at file:///r/a/p/f
> rm /a/p
referral: no mount of this group has this path
> rm /a/p/f
ok
> mv /a/p /b
cross-mount
# So it is where both are parts of this group.
> mount /c/q file:///r/c/q group=2 id=3 serial=8 part=1 mode=0750 caps=rdox
mount 3
> mv /a/p /c/q/p
cross-mount
> mv /a/p /c/q
cross-mount
> mv -x /a/p /c/q
cross-mount: a directory in one of them lives in another group
> create /a/p/f type=must -done
file 2000000000016 0644 0:0 len 0 v1 NOT_PERSISTED at file:///r/a/p/f
> mv /a/p/f /a/p
cross-mount
> rm /a/p/f
ok
> unmount /c/q id=3
mount 3
> quota /a/p inodes=10
ok
> unmount /a/p id=2 -empty -names
busy: it is not known yet what the UFS has in it (unknown)
> sync /a/p d:d -range -loaded
created 1 changed 0 removed 0 skipped 0
> unmount /a/p id=2 -empty -names
not empty
> sync /a/p -range -loaded
created 0 changed 0 removed 1 skipped 0
> unmount /a/p id=2 -empty -names
mount 2
> mount /a/p file:///r/a/p group=2 id=2 serial=7 part=1
stale: the mount was unmounted meanwhile
> stat /a/p
referral
> state
files 0 dirs 5 sessions 0 intents 0 mounts 0 trash 4
# A group forgets for no attempt that it was given the serial of: that one was
# refused, and the first group has gone back, or will.
> mount /e/p file:///r/e/p group=2 id=5 serial=20 part=1 caps=rdox
mount 5
> create /e/p/f type=must -done
file 200000000001a 0644 0:0 len 0 v1 NOT_PERSISTED at file:///r/e/p/f
> unmount /e/p id=5 serial=20
stale: that attempt to unmount it is over
> sync /e/p -range -loaded
created 0 changed 0 removed 0 skipped 1
> unmount /e/p id=5 serial=25 -empty
not empty
> mount /e/p file:///r/e/p group=2 id=5 serial=25 part=1 caps=rdox
mount 5
> rm /e/p/f
ok
> unmount /e/p id=5 serial=25 -empty
stale: that attempt to unmount it is over
> unmount /e/p id=5 serial=24
stale: that attempt to unmount it is over
> stat /e/p
dir 2000000000019 0755 0:0 entries 0 nlink 2 at file:///r/e/p mount
> unmount /e/p id=5 serial=30 -empty
mount 5
> mount /e/p file:///r/e/p group=2 id=5 serial=30 part=1
stale: the mount was unmounted meanwhile
> unmount /e/p id=5 serial=30 -empty
ok
