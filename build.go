package main

import (
	"cmp"
	"runtime"
	"runtime/debug"
)

// Set by the linker (-X main.version=… -X main.commit=…) where the build cannot
// see the repository, as in a container; else taken from the build information.
var version, commit string

// A build says what is running.
type build struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
	Go      string `json:"go"`
}

func readBuild() build {
	b := build{Version: "devel", Commit: "unknown", Go: runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok {
		if v := info.Main.Version; v != "" && v != "(devel)" {
			b.Version = v
		}
		for _, setting := range info.Settings {
			if setting.Key == "vcs.revision" {
				b.Commit = setting.Value
			}
		}
	}
	b.Version, b.Commit = cmp.Or(version, b.Version), cmp.Or(commit, b.Commit)
	return b
}
