# What a directory that was never listed lacks may be in the UFS all the same.
# A command with -names relies on nothing that was not asked for; the answer is
# about one directory, not about a path.
> mount / file:///data caps=rd
mount 1
> chmod / mode=0777
dir 1 0777 0:0 entries 0 nlink 2 at file:///data mount
> sync / d:b d:e -range
created 2 changed 0 removed 0 skipped 0
> tree /
b: dir 11 0755 0:0 entries 0 nlink 2 at file:///data/b
e: dir 12 0755 0:0 entries 0 nlink 2 at file:///data/e
> create /b/x type=cache -names
busy: it is not known yet whether the UFS has it (unknown)
> create /b/x type=cache -names asked=12/x
busy: it is not known yet whether the UFS has it (unknown)
> create /b/x type=cache -names asked=11/x
session 1 fence 1 file 13 version 1 key b/x
> call client=7 seq=1
> rm /b/y -names
busy: it is not known yet whether the UFS has it (unknown)
> call client=7 seq=1
> rm /b/y -names asked=11/y
not found
> chmod /b/y mode=0600 -names
busy: it is not known yet whether the UFS has it (unknown)
> xattr /b/y user.k v -names
busy: it is not known yet whether the UFS has it (unknown)
> mv /b/y /z -names
busy: it is not known yet whether the UFS has it (unknown)
> mkdir /b/y -names asked=11/y
intent 1 undecided mkdir mount 1 source b/y target b/y
> abandon s=1 -swept
ok
# While an intent for just this name is undecided the namespace knows best.
> create /b/y/z type=must -names
not found
> decide i=1
dir 14 0755 0:0 entries 0 nlink 2 at file:///data/b/y
# What Orca made itself has nothing in it that is not known.
> create /b/y/z type=must -names
session 2 fence 2 file 15 version 1 key b/y/z
> abandon s=2 -swept
ok
# The directory moves to a place where nothing was: what was asked there before
# says nothing about it.
> mv /b /c -names asked=1/c
intent 2 undecided rename mount 1 source b target c
> create /c/a type=cache -names asked=1/c
not found
> decide i=2
dir 11 0755 0:0 entries 1 nlink 3 at file:///data/c
> create /c/a type=cache -names asked=1/c
busy: it is not known yet whether the UFS has it (unknown)
> create /c/a type=cache -names asked=11/a
session 3 fence 3 file 16 version 1 key c/a
> abandon s=3 -swept
ok
# What it holds decides whether it may be replaced or removed.
> mkdir /d -names asked=1/d
intent 3 undecided mkdir mount 1 source d target d
> decide i=3
dir 17 0755 0:0 entries 0 nlink 2 at file:///data/d
> mv /d /e -names
busy: it is not known yet what the UFS has in it (unknown)
> rm /e -names
busy: it is not known yet what the UFS has in it (unknown)
> as 5:5
> rm /e -r -names
busy: it is not known yet what the UFS has in it (unknown)
> as root
> sync /e ino=0x12 -loaded
created 0 changed 0 removed 0 skipped 0
> rm /e -names
intent 4 undecided remove mount 1 source e
