module roster/tools/libravatar

go 1.26

require strk.kbt.io/projects/go/libravatar v0.0.0-20260301104140-add494e31dab
