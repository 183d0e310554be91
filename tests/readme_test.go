package tests

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestReadme types the README's tour into a shell, as it is written, and compares
// what comes with what the README says. Times and request ids differ.
func TestReadme(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("the README's tour needs curl, which is not installed")
	}
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	p := start(t)
	dir := t.TempDir() // where the tour leaves its files
	if err := os.Symlink(must(filepath.Abs("../testdata")), dir+"/testdata"); err != nil {
		t.Fatal(err)
	}
	commands := 0
	for _, block := range regexp.MustCompile("(?s)```console\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		for step := range strings.SplitSeq("\n"+block[1], "\n$ ") {
			command, want, _ := strings.Cut(step, "\n")
			if command == "" {
				continue
			}
			commands++
			cmd := exec.Command("sh", "-c", strings.ReplaceAll(command, "localhost:8080", strings.TrimPrefix(p.url, "http://")))
			cmd.Dir = dir
			got, err := cmd.Output()
			if err != nil {
				t.Errorf("$ %s\n%v", command, err)
			}
			if got, want := settle(string(got)), settle(want); got != want {
				t.Errorf("$ %s\n%s\nbut the README says\n%s", command, got, want)
			}
		}
	}
	if commands < 10 {
		t.Errorf("found only %d commands in the README", commands)
	}
}

// settle replaces what is different each time.
func settle(output string) string {
	output = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z`).ReplaceAllString(output, "TIME")
	output = regexp.MustCompile(`"request_id":"[^"]*"`).ReplaceAllString(output, `"request_id":"ID"`)
	return strings.TrimSpace(strings.ReplaceAll(output, "\r", ""))
}
