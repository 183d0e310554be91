package tests

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"roster/internal/testkit"
)

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestReadme runs the commands of the README's tour in a shell and compares their
// output with the README. The tour can be repeated and leaves no file.
func TestReadme(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("the README's tour needs curl, which is not installed")
	}
	text := readFile(t, "../README.md")
	p := start(t)
	dir := t.TempDir()
	if err := os.Symlink(testkit.Must(filepath.Abs("../testdata")), dir+"/testdata"); err != nil {
		t.Fatal(err)
	}
	commands := 0
	for range 2 {
		for _, block := range regexp.MustCompile("(?s)```console\n(.*?)```").FindAllStringSubmatch(text, -1) {
			for step := range strings.SplitSeq("\n"+block[1], "\n$ ") {
				command, want, _ := strings.Cut(step, "\n")
				if command == "" {
					continue
				}
				commands++
				cmd := exec.Command("sh", "-c", strings.ReplaceAll(command, "localhost:8080",
					strings.TrimPrefix(p.url, "http://")))
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
	}
	if commands < 20 {
		t.Errorf("the README's tour has %d commands, want 20 or more", commands)
	}
	if files := testkit.Must(os.ReadDir(dir)); len(files) != 1 {
		t.Errorf("the README's tour leaves files: %v", files)
	}
}

// settle replaces what differs between two runs.
func settle(output string) string {
	output = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z`).ReplaceAllString(output, "TIME")
	output = regexp.MustCompile(`"request_id":"[^"]*"`).ReplaceAllString(output, `"request_id":"ID"`)
	output = regexp.MustCompile(`(avatar|thumbnail)/[a-z2-7]{26}`).ReplaceAllString(output, "$1/VERSION")
	return strings.TrimSpace(strings.ReplaceAll(output, "\r", ""))
}

// TestSettings compares the README's tables and .env.example with roster -h.
func TestSettings(t *testing.T) {
	t.Parallel()
	help, err := exec.Command(rosterBinary(), "-h").CombinedOutput()
	if err != nil {
		t.Fatal(err)
	}
	page := readFile(t, "../README.md")
	var program, readme [][]string
	for _, m := range regexp.MustCompile(`(?m)^  ([A-Z][A-Z0-9_*]+) +(\S+) +(.*)$`).FindAllStringSubmatch(string(help),
		-1) {
		program = append(program, m[1:])
	}
	row := regexp.MustCompile("(?m)^\\| `([A-Z][A-Z0-9_*]+)` \\| (.*) \\| (.*) \\|$")
	for _, m := range row.FindAllStringSubmatch(page, -1) {
		fallback := strings.Trim(m[2], "`")
		if fallback == "none" {
			fallback = "-"
		}
		readme = append(readme, []string{m[1], fallback, strings.ReplaceAll(m[3], "`", "")})
	}
	for _, m := range regexp.MustCompile(`(?m)^  (-\w+)\n\s+(.*)$`).FindAllStringSubmatch(string(help), -1) {
		program = append(program, m[1:])
	}
	for _, m := range regexp.MustCompile("(?m)^\\| `(-\\w+)` \\| (.*) \\|$").FindAllStringSubmatch(page, -1) {
		readme = append(readme, []string{m[1], strings.ReplaceAll(m[2], "`", "")})
	}
	for _, list := range [][][]string{program, readme} {
		slices.SortFunc(list, slices.Compare)
	}
	if diff := cmp.Diff(readme, program); diff != "" || len(program) < 19 {
		t.Errorf("%d variables and flags in README.md and in roster -h (-README +program):\n%s", len(program), diff)
	}
	example := readFile(t, "../.env.example")
	for _, s := range program {
		if s[0][0] == '-' {
			continue
		}
		line := "# " + strings.TrimSuffix(s[0], "*")
		if s[1] != "-" {
			line += "=" + s[1]
		}
		if !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(line)).MatchString(example) {
			t.Errorf(".env.example has no line %q", line)
		}
	}
}

// TestLinks follows the relative links of all documents, and references to
// docs/ in all other files, to their headings.
func TestLinks(t *testing.T) {
	markdown := regexp.MustCompile(`\]\(([^)\s]*)\)`)
	reference := regexp.MustCompile(`docs/[a-z]+\.md(?:#[a-z0-9-]+)?`)
	code := regexp.MustCompile("(?s)```.*?```")
	headings := map[string]map[string]bool{}
	links := 0
	check := func(from, link string) {
		path, anchor, _ := strings.Cut(link, "#")
		if path == "" {
			path = from
		} else {
			path = filepath.Join(filepath.Dir(from), path)
		}
		links++
		if _, err := os.Stat(path); err != nil {
			t.Errorf("%s links to %s: %v", from, link, err)
			return
		}
		if anchor == "" {
			return
		}
		if headings[path] == nil {
			headings[path] = map[string]bool{}
			text := code.ReplaceAllString(readFile(t, path), "")
			for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(text, -1) {
				slug := regexp.MustCompile(`[^\w -]`).ReplaceAllString(strings.ToLower(m[1]), "")
				headings[path][strings.ReplaceAll(slug, " ", "-")] = true
			}
		}
		if !headings[path][anchor] {
			t.Errorf("%s links to %s: no such heading", from, link)
		}
	}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == ".git" || d.Name() == ".terraform" || d.Name() == "data"):
			return fs.SkipDir
		case filepath.Ext(path) == ".md":
			for _, m := range markdown.FindAllStringSubmatch(code.ReplaceAllString(readFile(t, path), ""), -1) {
				if !strings.Contains(m[1], ":") {
					check(path, m[1])
				}
			}
		case filepath.Ext(path) == ".go" || filepath.Ext(path) == ".yaml":
			for _, link := range reference.FindAllString(readFile(t, path), -1) {
				check("../README.md", link)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if links < 50 {
		t.Errorf("the documents have %d links, want 50 or more", links)
	}
}
