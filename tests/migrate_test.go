package tests

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"roster/internal/testkit"
)

// TestMigrate copies an embedded store to AWS, killed on the way and repeated. All users
// have their times and their images under the same versions; those that existed before
// are left alone. -long copies 100,000, except under the race detector, which takes ten times as long.
func TestMigrate(t *testing.T) {
	t.Parallel()
	users := 2000
	if *testkit.Long && !raceEnabled {
		users = 100_000
	}
	for _, b := range backends[1:] {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			seedUsers(t, dir, users)
			from := start(t, "DATA_DIR="+dir)
			images := map[string][]byte{}
			for i := range 200 {
				id := userID(fmt.Sprintf("user%d@example.com", i*users/200))
				images[id] = testkit.PNG(testkit.Gradient(20, 20, i))
				from.do(t, "PUT /users/"+id+"/avatar", nil, images[id]).want(t, http.StatusOK)
			}
			list := func(p *process) map[string]userJSON {
				var all []userJSON
				byID := map[string]userJSON{}
				if err := json.Unmarshal([]byte(p.do(t, "GET /users", nil, nil).want(t, http.StatusOK).body),
					&all); err != nil {
					t.Fatal(err)
				}
				for _, u := range all {
					byID[u.ID] = u
				}
				return byID
			}
			want := list(from)
			from.stop(t)

			env := b.env(t)
			to := start(t, env...)
			before := to.do(t, "POST /user", http.Header{"Content-Type": {"application/x-www-form-urlencoded"}},
				[]byte(url.Values{"name": {"Was here before"}, "email": {"user0@example.com"}}.Encode())).want(t,
				http.StatusCreated).user(t)
			want[before.ID] = before
			delete(images, before.ID)

			migrate := func() (output string, err error) {
				cmd := command(t, append(env, "DATA_DIR="+dir)...)
				cmd.Args = append(cmd.Args, "-migrate")
				out, err := cmd.CombinedOutput()
				return string(out), err
			}
			cut := command(t, append(env, "DATA_DIR="+dir)...)
			cut.Args = append(cut.Args, "-migrate")
			if err := cut.Start(); err != nil {
				t.Fatal(err)
			}
			testkit.Eventually(t, "a user is copied", func() error {
				if p := to.do(t, "GET /users?limit=2", nil, nil).want(t, http.StatusOK); strings.Count(p.body,
					`"id"`) < 2 {
					return errors.New("none is")
				}
				return nil
			})
			cut.Process.Kill()
			cut.Wait()
			if out, err := migrate(); err != nil {
				t.Fatalf("-migrate: %v\n%s", err, out)
			}
			out, err := migrate()
			if err != nil || !strings.Contains(out, fmt.Sprintf(`"copied":0,"existing":%d,"failed":0`, users)) {
				t.Errorf("-migrate, repeated: %v\n%s", err, out)
			}

			got := list(to)
			if len(got) != len(want) {
				t.Errorf("%d users were copied, want %d", len(got), len(want))
			}
			for id, u := range want {
				if got[id] != u {
					t.Errorf("the copy is %v, want %v", got[id], u)
				}
			}
			for id, image := range images {
				if a := to.do(t, "GET "+want[id].AvatarURL, nil, nil).want(t, http.StatusOK); a.body != string(image) {
					t.Errorf("%s has an image of %d bytes, want the %d that were uploaded", id, len(a.body), len(image))
				}
			}
		})
	}
}

// TestMigrateFails: exit status 1 if a user was not copied, 2 without a store or a table.
func TestMigrateFails(t *testing.T) {
	t.Parallel()
	env := backends[1].env(t)
	wantExit := func(status int, want string, env ...string) {
		t.Helper()
		cmd := command(t, env...)
		cmd.Args = append(cmd.Args, "-migrate")
		out, _ := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != status || !strings.Contains(string(out), want) {
			t.Errorf("-migrate: exit status %d, want %d and %q\n%s", cmd.ProcessState.ExitCode(), status, want, out)
		}
	}
	wantExit(2, "DYNAMODB_TABLE")
	wantExit(2, "no embedded store", append(env, "DATA_DIR="+t.TempDir())...)
	dir := t.TempDir()
	env = append(env, "DATA_DIR="+dir)
	seedUsers(t, dir, 3)
	p := start(t, "DATA_DIR="+dir)
	wantExit(2, "another process", env...)

	u := p.do(t, "PUT /users/"+userID("user1@example.com")+"/avatar", nil,
		testkit.PNG(testkit.Gradient(20, 20, 1))).want(t, http.StatusOK).user(t)
	p.stop(t)
	image := filepath.Join(dir, "avatars", u.ID, filepath.Base(u.AvatarURL))
	data := testkit.Must(os.ReadFile(image))
	os.Remove(image)
	wantExit(1, "1 of 3 users were not copied", env...)
	os.WriteFile(image, data, 0o600)
	wantExit(0, `"copied":1,"existing":2,"failed":0`, env...)
}
