package tests

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"roster/internal/testkit"
)

// A powerDisk is an ext4 file system in a file that can be copied atomically, as its disk is when the power fails:
// what the file system holds in memory is not in the copy.
type powerDisk struct {
	outer string // an XFS file system, for its reflinks: the disk and the copies are files in it
	dir   string // where the disk is mounted
}

// A powerCopy is a copy of a disk.
type powerCopy struct {
	name     string
	path     string
	from, to time.Time // the copy was made between these
	erased   string    // id of a deleted user, of whom no file may be left
}

// newPowerDisk mounts a new disk. It skips the test where that is not possible.
func newPowerDisk(t *testing.T) *powerDisk {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("file systems cannot be mounted: run as root")
	}
	for _, tool := range []string{"mkfs.xfs", "mkfs.ext4"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%v: install xfsprogs and e2fsprogs", err)
		}
	}
	work := t.TempDir()
	d := &powerDisk{outer: filepath.Join(work, "outer"), dir: filepath.Join(work, "disk")}
	d.makeFile(t, filepath.Join(work, "outer.xfs"), 3<<30, "mkfs.xfs", "-q", "-m", "reflink=1")
	mountFile(t, filepath.Join(work, "outer.xfs"), d.outer, "loop")
	d.makeFile(t, filepath.Join(d.outer, "disk"), 512<<20, "mkfs.ext4", "-q")
	// The file system writes by itself only every minute, which takes longer than the test.
	mountFile(t, filepath.Join(d.outer, "disk"), d.dir, "loop,commit=60")
	return d
}

// makeFile creates a file system in a sparse file.
func (d *powerDisk) makeFile(t *testing.T, path string, size int64, mkfs ...string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(mkfs[0], append(mkfs[1:], path)...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", mkfs[0], err, out)
	}
}

// mountFile mounts a file system in a file until the end of the test.
func mountFile(t *testing.T, path, dir, options string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-o", options, path, dir).CombinedOutput(); err != nil {
		t.Skipf("%s cannot be mounted (%v %s): loop devices are required", path, err, out)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
}

// copy copies the disk.
func (d *powerDisk) copy(t *testing.T, name string) powerCopy {
	t.Helper()
	c := powerCopy{name: name, path: filepath.Join(d.outer, strings.ReplaceAll(name, " ", "-")), from: time.Now()}
	cp := exec.Command("cp", "--reflink=always", filepath.Join(d.outer, "disk"), c.path)
	if out, err := cp.CombinedOutput(); err != nil {
		t.Fatalf("cp: %v\n%s", err, out)
	}
	c.to = time.Now()
	return c
}

// TestPowerLoss copies the disk atomically, first after single changes, then while eight clients make changes. The
// service starts on each copy. No acknowledged change may be missing, and no file incomplete.
func TestPowerLoss(t *testing.T) {
	t.Parallel()
	disk := newPowerDisk(t)
	p := start(t, "DATA_DIR="+filepath.Join(disk.dir, "data"))
	client := newLoadClient(t, p)
	files := map[string]bool{} // SHA-256 of every image and thumbnail
	var ledgers []*ledger

	// After a single change, no other write makes it durable by chance.
	var copies []powerCopy
	for i, image := range ledgerImages() {
		l := &ledger{email: fmt.Sprintf("single%d@example.com", i)}
		ledgers = append(ledgers, l)
		l.create(t, client, nil)
		l.upload(t, client, image)
		copies = append(copies, disk.copy(t, fmt.Sprint("upload ", i)))
		sum, _ := l.thumbnail(t, client)
		files[imageSum(image)], files[sum] = true, true
	}
	copies = append(copies, disk.copy(t, "thumbnail"))
	ledgers[0].removeImage(t, client)
	copies = append(copies, disk.copy(t, "image deleted"))
	ledgers[1].remove(t, client)
	deleted := disk.copy(t, "user deleted")
	deleted.erased = userID(ledgers[1].email)
	copies = append(copies, deleted)

	concurrent := 2
	if *testkit.Long {
		concurrent = 20
	}
	const writers = 8
	var written [writers][]*ledger
	var stop atomic.Bool
	var running sync.WaitGroup
	for i := range writers {
		running.Go(func() {
			for n := 0; !stop.Load(); n++ {
				if !changeAny(t, client, &written[i], fmt.Sprintf("w%d-%d@example.com", i, n)) {
					t.Error("a change has no response")
					return
				}
			}
		})
	}
	for i := range concurrent {
		time.Sleep(200*time.Millisecond + rand.N(500*time.Millisecond))
		copies = append(copies, disk.copy(t, fmt.Sprint("concurrent ", i)))
	}
	stop.Store(true)
	running.Wait()
	p.kill()

	ledgers = append(ledgers, slices.Concat(written[:]...)...)
	for _, c := range copies {
		t.Run(c.name, func(t *testing.T) { checkPowerCopy(t, c, ledgers, files) })
	}
	changes := 0
	for _, l := range ledgers {
		changes += len(l.changes)
	}
	t.Logf("%d changes of %d users were acknowledged, %d copies made", changes, len(ledgers), len(copies))
}

// checkPowerCopy starts the service on a copy, and compares users and files.
func checkPowerCopy(t *testing.T, c powerCopy, ledgers []*ledger, files map[string]bool) {
	dir := t.TempDir()
	mountFile(t, c.path, dir, "loop")
	p := start(t, "DATA_DIR="+filepath.Join(dir, "data"))
	checkLedgers(t, newLoadClient(t, p), ledgers, c.from, c.to)
	root := os.DirFS(filepath.Join(dir, "data", "avatars"))
	err := fs.WalkDir(root, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if c.erased != "" && strings.HasPrefix(path, c.erased) {
			t.Errorf("%s of a deleted user is left", path)
		}
		if entry.IsDir() {
			return nil
		}
		data, err := fs.ReadFile(root, path)
		if err == nil && !files[sha256Hex(data)] {
			t.Errorf("%s, of %d bytes, is not complete", path, len(data))
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
