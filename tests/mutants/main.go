// Mutants puts small faults into the service, each of which breaks a promise, and runs the test that must notice it.
//
//	go run ./tests/mutants          every fault: about ten seconds each
//	go run ./tests/mutants TEXT     those with this text in their promise, declaration or test
//	go run ./tests/mutants -check   only that every fault can still be put in
//
// mutants.txt has the faults. It exits with status 1 if a fault survives, and 2 if one cannot be tried.
package main

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"
)

//go:embed mutants.txt
var list string

// A mutant is a fault: in a declaration of the service, one text is replaced by another.
type mutant struct {
	promise  string
	scope    string // a function, a method as Type.Name, or a file
	old, new string
	pkg      string   // of the test
	test     string   // its name
	flags    []string // of go test
}

func main() {
	check := flag.Bool("check", false, "only check that every fault can still be put in")
	parallel := flag.Int("parallel", 2, "faults tried at the same time")
	flag.Parse()
	os.Exit(run(*check, *parallel, flag.Arg(0)))
}

func run(check bool, parallel int, filter string) (status int) {
	mutants, err := parse(list)
	if err != nil {
		return report(err)
	}
	dir, err := os.MkdirTemp("", "mutants-")
	if err != nil {
		return report(err)
	}
	defer os.RemoveAll(dir)
	overlays := make([]string, len(mutants))
	for i, m := range mutants {
		if overlays[i], err = m.write(filepath.Join(dir, fmt.Sprint(i))); err != nil {
			status = report(fmt.Errorf("%s: %w", m.promise, err))
		}
	}
	if check || status != 0 {
		return status
	}
	wanted := map[string]string{} // packages and flags, and the tests there
	for _, m := range mutants {
		if key := m.pkg + " " + strings.Join(m.flags, " "); m.matches(filter) {
			wanted[key] = strings.TrimPrefix(wanted[key]+"|"+m.test, "|")
		}
	}
	for key, tests := range wanted { // a test that fails without a fault proves nothing
		fields := strings.Fields(key)
		if out, err := goTest("", fields[0], tests, fields[1:]); err != nil {
			return report(fmt.Errorf("without a fault: %w\n%s", err, out))
		}
	}
	var mu sync.Mutex
	var running sync.WaitGroup
	slots := make(chan struct{}, parallel)
	for i, m := range mutants {
		if !m.matches(filter) {
			continue
		}
		running.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			start := time.Now()
			result, code := m.try(overlays[i])
			mu.Lock()
			defer mu.Unlock()
			fmt.Printf("%5.1f s  %s: %s\n", time.Since(start).Seconds(), m.promise, result)
			status = max(status, code)
		})
	}
	running.Wait()
	return status
}

func (m mutant) matches(filter string) bool {
	return strings.Contains(m.promise+"\n"+m.scope+"\n"+m.test, filter)
}

func report(err error) (status int) {
	fmt.Fprintln(os.Stderr, err)
	return 2
}

// parse reads mutants separated by blank lines: a line with the promise, one with the scope, the old text in lines
// that begin with -, the new text in lines that begin with +, and the package, the test and its flags.
func parse(text string) (mutants []mutant, err error) {
	for block := range strings.SplitSeq(text, "\n\n") {
		var m mutant
		var plain, old, replacement []string
		for line := range strings.Lines(block) {
			line = strings.TrimSuffix(line, "\n")
			switch {
			case strings.HasPrefix(line, "#") || line == "":
			case line[0] == '-':
				old = append(old, strings.TrimSpace(line[1:]))
			case line[0] == '+':
				replacement = append(replacement, line[1:])
			default:
				plain = append(plain, line)
			}
		}
		if len(plain)+len(old) == 0 {
			continue
		}
		if len(plain) != 3 || len(old) == 0 {
			return nil, fmt.Errorf("mutants.txt: not a promise, a scope, a change and a test:\n%s", block)
		}
		fields := strings.Fields(plain[2])
		if len(fields) < 2 {
			return nil, fmt.Errorf("mutants.txt: %q is not a package and a test", plain[2])
		}
		m.promise, m.scope, m.pkg, m.test, m.flags = plain[0], plain[1], fields[0], fields[1], fields[2:]
		m.old, m.new = strings.Join(old, "\n"), strings.Join(replacement, "\n")
		mutants = append(mutants, m)
	}
	return mutants, nil
}

// write writes the changed file, and the overlay that makes the go command use it, into dir. It returns the
// overlay's name.
func (m mutant) write(dir string) (overlay string, err error) {
	if err := m.findTest(); err != nil {
		return "", err
	}
	path, start, end, err := find(m.scope)
	if err != nil {
		return "", err
	}
	source, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if end < 0 {
		end = len(source)
	}
	var lines []string // with any indentation
	for line := range strings.SplitSeq(m.old, "\n") {
		lines = append(lines, regexp.QuoteMeta(line))
	}
	found := regexp.MustCompile(strings.Join(lines, `\n\s*`)).FindAllIndex(source[start:end], -1)
	if len(found) != 1 {
		return "", fmt.Errorf("%s, %s has %d places with this text, want 1:\n%s", path, m.scope, len(found), m.old)
	}
	changed := bytes.Join([][]byte{source[:start+found[0][0]], []byte(m.new), source[start+found[0][1]:]}, nil)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	target, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	replacement := filepath.Join(dir, filepath.Base(path))
	text, err := json.Marshal(map[string]any{"Replace": map[string]string{target: replacement}})
	if err != nil {
		return "", err
	}
	overlay = filepath.Join(dir, "overlay.json")
	return overlay, errors.Join(os.WriteFile(replacement, changed, 0o600), os.WriteFile(overlay, text, 0o600))
}

// findTest returns an error if the test does not exist.
func (m mutant) findTest() error {
	files, err := filepath.Glob(filepath.Join(m.pkg, "*_test.go"))
	if err != nil {
		return err
	}
	for _, path := range files {
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if bytes.Contains(source, []byte("\nfunc "+m.test+"(")) {
			return nil
		}
	}
	return fmt.Errorf("there is no test %s in %s", m.test, m.pkg)
}

// find returns the file of a scope, and where in it the scope is; end is -1 for a whole file.
func find(scope string) (path string, start, end int, err error) {
	if strings.HasSuffix(scope, ".go") {
		return scope, 0, -1, nil
	}
	files, err := filepath.Glob("*.go")
	if err != nil {
		return "", 0, 0, err
	}
	for _, path := range files {
		set := token.NewFileSet()
		file, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return "", 0, 0, err
		}
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && nameOf(f) == scope {
				return path, set.Position(f.Pos()).Offset, set.Position(f.End()).Offset, nil
			}
		}
	}
	return "", 0, 0, fmt.Errorf("there is no function %s; run this command in the directory of the service", scope)
}

// nameOf returns the name of a function, or Type.Name for a method.
func nameOf(f *ast.FuncDecl) string {
	if f.Recv == nil {
		return f.Name.Name
	}
	receiver := f.Recv.List[0].Type
	if pointer, ok := receiver.(*ast.StarExpr); ok {
		receiver = pointer.X
	}
	return fmt.Sprint(receiver) + "." + f.Name.Name
}

// try runs the test with the fault. The code is 0 if the test fails.
func (m mutant) try(overlay string) (result string, code int) {
	out, err := goTest(overlay, m.pkg, m.test, m.flags)
	switch {
	case err == nil:
		return m.test + " passes: SURVIVED", 1
	case !strings.Contains(out, "=== RUN   "+m.test+"\n") || strings.Contains(out, "go build:"):
		return "the fault does not compile\n" + out, 2
	}
	return "caught by " + m.test, 0
}

// goTest runs tests, with the overlay unless it is "". Skipping is an error.
func goTest(overlay, pkg, tests string, flags []string) (out string, err error) {
	// Without optimisation and debug information, compiling takes half the time.
	args := []string{"test", "-count=1", "-vet=off", "-gcflags=-N -l", "-ldflags=-w", "-v", "-run", "^(" + tests + ")$",
		pkg}
	cmd := exec.Command("go", append(args, flags...)...)
	if overlay != "" { // also for builds that the test starts
		cmd.Env = append(os.Environ(), "GOFLAGS="+strings.TrimSpace(os.Getenv("GOFLAGS")+" -overlay="+overlay))
	}
	text, err := cmd.CombinedOutput()
	if err == nil && bytes.Contains(text, []byte("\n--- SKIP: ")) {
		err = errors.New("a test is skipped")
	}
	return string(text), err
}
