# Owner, group, others, sticky directories and root.
> mkdir /pub mode=01777
dir 11 1777 0:0 entries 0 nlink 2
> mkdir /home mode=0755
dir 12 0755 0:0 entries 0 nlink 2
> mkdir /home/u mode=0750
dir 13 0750 0:0 entries 0 nlink 2
> chown /home/u uid=1000 gid=100
dir 13 0750 1000:100 entries 0 nlink 2
> as 1000:100
> create /home/u/f -done mode=0640
file 14 0640 1000:100 len 0 v1 NOT_PERSISTED
> create /home/x -done
permission denied
> mkdir /x
permission denied
> xattr /home/u/f user.a 1
ok
> chmod /home/u/f mode=0600
file 14 0600 1000:100 len 0 v1 NOT_PERSISTED
> chown /home/u/f uid=1001 gid=100
permission denied
> chown /home/u/f uid=1000 gid=7
permission denied
> chmod /home mode=0777
permission denied
> create /pub/mine -done
file 15 0644 1000:100 len 0 v1 NOT_PERSISTED
> as 1001:100
> stat /home/u/f
file 14 0600 1000:100 len 0 v1 NOT_PERSISTED
> ls /home/u
f: file 14 0600 1000:100 len 0 v1 NOT_PERSISTED
> create /home/u/g -done
permission denied
> create /home/u/f -done -o
permission denied
> rm /home/u/f
permission denied
> rm /pub/mine
permission denied: the directory is sticky and the entry another's
> mv /pub/mine /pub/yours
permission denied: the directory is sticky and the entry another's
> touch /home/u/f t=5
permission denied
> xattr /home/u/f user.b 1
permission denied
> as 1002:200
> stat /home/u/f
permission denied
> ls /home/u
permission denied
> as 1002:200:100
> ls /home/u
f: file 14 0600 1000:100 len 0 v1 NOT_PERSISTED
> as root
> chmod /home/u mode=02770
dir 13 2770 1000:100 entries 1 nlink 2
> as 1000:100
> chmod /home/u/f mode=0666
file 14 0666 1000:100 len 0 v1 NOT_PERSISTED
> chmod /home/u mode=02777
dir 13 2777 1000:100 entries 1 nlink 2
> as 1002:200
> create /home/u/by-other -done
file 16 0644 1002:100 len 0 v1 NOT_PERSISTED
> mkdir /home/u/sub
dir 17 2755 1002:100 entries 0 nlink 2
> touch /home/u/f t=5
permission denied
> touch /home/u/f t=5 -now
file 14 0666 1000:100 len 0 v1 NOT_PERSISTED
> rm /home/u -r
permission denied
> as 1000:100
> rm /home/u -r
permission denied
> as root
> rm /home -r
ok
