# Group 2: it has nothing but the mounts of its junctions, at their paths.
> stat /
referral
> stat /data/x
referral
> create /f type=must -done
referral: no mount of this group has this path
> mount /data/x s3://b
invalid: mounts of this group are made through their junction
> mount /data/x s3://b group=3 id=2 serial=4
invalid: mounts of this group are made through their junction
> mount /data/x s3://b group=2 id=2 serial=4
mount 2
> mount /data/x s3://b group=2 id=2 serial=4
mount 2
> stat /data/x
dir 2000000000012 0755 0:0 entries 0 nlink 2 at s3://b mount
> stat /data/x/f
missing [f] below 2000000000012, key f pending 0
> stat /data
referral
> stat /other/x
referral
> create /data/x/f type=must -done
file 2000000000013 0644 0:0 len 0 v1 NOT_PERSISTED at s3://b/f
> create /data/y type=must -done
referral: no mount of this group has this path
> mkdir /data/x/d
intent 562949953421313 undecided mkdir mount 2 source d target d
> decide i=0x2000000000001
dir 2000000000014 0755 0:0 entries 0 nlink 2 at s3://b/d
> mv /data/x/f /data/x/d/f
file 2000000000013 0644 0:0 len 0 v1 NOT_PERSISTED at s3://b/d/f
> mv /data/x/d/f /f
cross-mount
> mv /f /data/x/d/f
referral: no mount of this group has this path
# Options: the newer ones win.
> mount /data/x s3://b group=2 id=2 serial=3 -ro
mount 2
> create /data/x/g type=must -done
file 2000000000015 0644 0:0 len 0 v1 NOT_PERSISTED at s3://b/g
> mount /data/x s3://b group=2 id=2 serial=9 -ro
mount 2
> create /data/x/h type=must -done
read-only
# No mount within a mount, and no number twice.
> mount /data/x/in s3://c group=2 id=5 serial=11
unsupported: a mount in a group of its own holds no other mounts
> mount /data/z s3://c group=2 id=5 serial=11
mount 5
> unmount /data/x
invalid: mounts of this group are unmounted through their junction
> unmount - id=2
mount 2
> create /data/z/s type=async
session 562949953421313 fence 562949953421313 file 2000000000017 version 1 key s
> unmount - id=5
busy: a file is open for writing there
> abandon s=0x2000000000001 -swept
ok
> unmount - id=5
mount 5
> unmount - id=5
ok
> mount /data/x s3://b group=2 id=2 serial=12
stale: the mount was unmounted meanwhile
> unmount - id=7
ok
> mount /late s3://d group=2 id=7 serial=13
stale: the mount was unmounted meanwhile
> reopen
> stat /data/z/s
referral
> mount /data/z s3://c group=2 id=8 serial=14
mount 8
> stat /data/z
dir 2000000000019 0755 0:0 entries 0 nlink 2 at s3://c mount
> state
files 2 dirs 7 sessions 0 intents 0 mounts 1 trash 3
