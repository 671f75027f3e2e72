# What the store says: new, changed and vanished names, and what it must not
# touch.
> mount / file:///r caps=rdo
mount 1
> sync / f:a:v1 f:b:v1 d:d -range -loaded
created 3 changed 0 removed 0 skipped 0
> tree /
a: file 11 0644 0:0 len 2 v1 PERSISTED fp v1 at file:///r/a
b: file 12 0644 0:0 len 2 v1 PERSISTED fp v1 at file:///r/b
d: dir 13 0755 0:0 entries 0 nlink 2 at file:///r/d
> sync / f:a:v1 f:b:v22 d:d -range -v
created 0 changed 1 removed 0 skipped 0
event EVENT_CONTENT ino 12 1/b
effect 2 file 12 version 2 id 0 
> sync / f:a:v1 d:d f:new:v1 gone:b
created 1 changed 0 removed 1 skipped 0
> tree /
a: file 11 0644 0:0 len 2 v1 PERSISTED fp v1 at file:///r/a
d: dir 13 0755 0:0 entries 0 nlink 2 at file:///r/d
new: file 14 0644 0:0 len 2 v1 PERSISTED fp v1 at file:///r/new
> sync / f:d:v1
created 0 changed 1 removed 0 skipped 0
> sync /d f:x:v1 -range -loaded
not found: the directory is gone
> sync / f:d:v1
created 0 changed 0 removed 0 skipped 0
> sync /d -range
not found: the directory is gone
> sync / f:d:v1 -range
created 0 changed 0 removed 2 skipped 0
> tree /
d: file 15 0644 0:0 len 2 v1 PERSISTED fp v1 at file:///r/d

# names that changed since the listing began
> rm /d
intent 1 undecided remove mount 1 source d want v1
> decide i=1
ok
> sync / f:d:v1 change=4
created 0 changed 0 removed 0 skipped 1
> sync / f:d:v1
created 1 changed 0 removed 0 skipped 0
> create /m type=must -done
file 17 0644 0:0 len 0 v1 NOT_PERSISTED at file:///r/m
> sync / -range f:d:v1
created 0 changed 0 removed 0 skipped 1
> tree /
d: file 16 0644 0:0 len 2 v1 PERSISTED fp v1 at file:///r/d
m: file 17 0644 0:0 len 0 v1 NOT_PERSISTED at file:///r/m

# names being written or masked
> create /d type=cache -o
session 1 fence 1 file 16 version 2 key d
> sync / f:d:v3 f:m:v3
created 0 changed 0 removed 0 skipped 2
> complete s=1 len=3 fp=mine
file 16 0644 0:0 len 3 v2 PERSISTED fp mine at file:///r/d
> sync / f:d:mine -range
created 0 changed 0 removed 0 skipped 1
> mkdir /k
intent 2 undecided mkdir mount 1 source k target k
> sync / d:k f:d:mine -range
created 0 changed 0 removed 0 skipped 2
> sync / d:k f:d:mine -range intent=2
created 1 changed 0 removed 0 skipped 1
> decide i=2 -existed
exists: decided, but not applied: 
> tree /
d: file 16 0644 0:0 len 3 v2 PERSISTED fp mine at file:///r/d
k: dir 18 0755 0:0 entries 0 nlink 2 at file:///r/k
m: file 17 0644 0:0 len 0 v1 NOT_PERSISTED at file:///r/m
> sync / f:a:v1 f:b:v1 f:c:v1 after= upto=b -range
created 3 changed 0 removed 0 skipped 0
> sync / f:.: f:a/b:v1
created 0 changed 0 removed 0 skipped 2
