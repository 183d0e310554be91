package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/text/unicode/norm"

	"roster/internal/testkit"
)

func TestParseListQuery(t *testing.T) {
	id := userID("ada@example.com")
	cursor := strings.ToUpper(id)
	for _, test := range []struct {
		query string
		limit int
		after string
		ok    bool
	}{
		{"", 0, "", true},
		{"limit=1", 1, "", true},
		{"limit=1000", 1000, "", true},
		{"cursor=" + cursor, 100, id, true},
		{"cursor=" + cursor + "&limit=7", 7, id, true},
		{"limit=0", 0, "", false},
		{"limit=1001", 0, "", false},
		{"limit=-1", 0, "", false},
		{"limit=", 0, "", false},
		{"limit=1e3", 0, "", false},
		{"limit=99999999999999999999", 0, "", false},
		{"limit=1&limit=2", 0, "", false},
		{"cursor=", 0, "", false},
		{"cursor=x", 0, "", false},
		{"cursor=" + id[:35], 0, "", false},
		{"cursor=%00", 0, "", false},
		{"cursor=" + cursor + "&cursor=" + cursor, 0, "", false},
		{"offset=1", 0, "", false},
		{"limit=%zz", 0, "", false},
		{"limit=1;cursor=x", 0, "", false},
	} {
		t.Run(test.query, func(t *testing.T) {
			limit, after, _, err := parseListQuery(test.query)
			if !test.ok {
				if err == nil || problemOf(err).Status != http.StatusBadRequest {
					t.Errorf("query %q: limit %d, after %q, error %v; want 400", test.query, limit, after, err)
				}
				return
			}
			if limit != test.limit || after != test.after || err != nil {
				t.Errorf("query %q: limit %d, after %q, error %v; want %d and %q", test.query, limit, after, err,
					test.limit, test.after)
			}
		})
	}
}

// TestParseListQueryFirstFault: the same query is answered in the same words every time.
func TestParseListQueryFirstFault(t *testing.T) {
	for range 20 {
		_, _, _, err := parseListQuery("limit=0&cursor=x&a=1&b=2")
		if got := problemOf(err).Errors[0].Field; got != "a" {
			t.Fatalf("the first fault is that of %s, want a", got)
		}
	}
}

// userJSON is a user in the API, for encoding/json.
type userJSON struct {
	ID           string `json:"id"`
	Name         string `json:"name"`
	Email        string `json:"email"`
	AvatarURL    string `json:"avatar_url,omitempty"`
	ThumbnailURL string `json:"thumbnail_url,omitempty"`
	CreatedAt    string `json:"created_at"`
	UpdatedAt    string `json:"updated_at"`
}

// TestAppendUser: a user has the bytes of encoding/json.
func TestAppendUser(t *testing.T) {
	names := []string{"", "Ada Lovelace", "José", "\xff", "Ada\xe2\x80", "a\u2028b\u2029c", "👩‍🚀",
		strings.Repeat(`<&>"\\`, 100)}
	for r := range rune(0x300) {
		names = append(names, "Ada "+string(r)+"K")
	}
	for i, name := range names {
		u := testUser("anna@example.com")
		u.Name, u.UpdatedAt = name, u.CreatedAt.Add(time.Duration(i)*time.Millisecond)
		want := userJSON{
			ID: u.ID, Name: name, Email: u.Email,
			CreatedAt: u.CreatedAt.Format(timeFormat), UpdatedAt: u.UpdatedAt.Format(timeFormat),
		}
		if i%2 == 0 {
			u.Email, u.Avatar = name+"@example.com", Avatar{Key: "key"}
			want.Email = u.Email
			want.AvatarURL = "https://example.com/a&b/users/" + u.ID + "/avatar/key"
			want.ThumbnailURL = "https://example.com/a&b/users/" + u.ID + "/thumbnail/key"
		}
		wantBytes, err := json.Marshal(want)
		wantError(t, err, nil)
		s := &server{config: config{PublicURL: "https://example.com/a&b"}}
		if got := s.appendUser([]byte("before"), u); string(got) != "before"+string(wantBytes) {
			t.Errorf("user with the name %q:\n%s, want\n%s", name, got, wantBytes)
		}
	}
}

func BenchmarkAppendUser(b *testing.B) {
	u, s := testUser("anna@example.com"), &server{}
	var body []byte
	for b.Loop() {
		body = s.appendUser(body[:0], u)
	}
}

func numberedID(n int) string { return fmt.Sprintf("00000000-0000-8000-8000-%012d", n) }

// A fewUsers is a store of n users, of which one read returns at most five.
type fewUsers struct {
	Users
	n    int
	read *int // users read
}

func (s fewUsers) Page(_ context.Context, after string, limit int) (page []User, next string, err error) {
	first, _ := strconv.Atoi(after[max(len(after)-12, 0):])
	for i := first + 1; i <= s.n; i++ {
		*s.read++
		u := testUser("anna@example.com")
		u.ID = numberedID(i)
		page = append(page, u)
		if len(page) == limit || len(page) == 5 {
			return page, u.ID, nil
		}
	}
	return page, "", nil
}

func (s fewUsers) List(ctx context.Context, send func([]User) error) error {
	for i := 0; i < s.n; i += 5 {
		page, _, _ := s.Page(ctx, numberedID(i), 5)
		if err := send(page); err != nil {
			return err
		}
	}
	return nil
}

// TestListUsers: the whole list has all users, and HEAD reads only one. A page has a Link if there are more.
func TestListUsers(t *testing.T) {
	for _, test := range []struct {
		method, query     string
		users, read, want int
		link              string
	}{
		{"GET", "", 0, 0, 0, ""},
		{"GET", "", 4, 4, 4, ""},
		{"GET", "", 5, 5, 5, ""},
		{"GET", "", 23, 23, 23, ""},
		{"HEAD", "", 23, 1, 0, ""},
		{"GET", "?limit=4", 0, 0, 0, ""},
		{"GET", "?limit=4", 3, 3, 3, ""},
		{"GET", "?limit=4", 4, 4, 4, ""},
		{"GET", "?limit=4", 5, 5, 4, `</users?cursor=` + numberedID(4) + `&limit=4>; rel="next"`},
		{"GET", "?limit=9", 9, 9, 9, ""}, // two reads
		{"GET", "?limit=9", 12, 10, 9, `</users?cursor=` + numberedID(9) + `&limit=9>; rel="next"`},
	} {
		var read int
		store := fewUsers{n: test.users, read: &read}
		s := newTestServer(config{}, store, nil, nil)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest(test.method, "/users"+test.query, nil))
		body := w.Body.Bytes()
		if test.method == "HEAD" { // net/http would make a Content-Length of what is written
			if len(body) > 0 || w.Header().Get("Content-Type") != "application/json" {
				t.Errorf("HEAD /users: Content-Type %q, body %q", w.Header().Get("Content-Type"), body)
			}
			body = []byte("[]")
		}
		var users []userJSON
		err := json.Unmarshal(body, &users)
		name := fmt.Sprintf("%s /users%s of %d users", test.method, test.query, test.users)
		if w.Code != http.StatusOK || err != nil || len(users) != test.want || read != test.read {
			t.Errorf("%s: status %d, %d users, %d read, %v; want %d users, %d read",
				name, w.Code, len(users), read, err, test.want, test.read)
		}
		if link := w.Header().Get("Link"); link != test.link {
			t.Errorf("%s: Link %q, want %q", name, link, test.link)
		}
	}
}

// TestRefusedCreate: nothing is left of the image of a user whose email is taken.
func TestRefusedCreate(t *testing.T) {
	t.Parallel()
	_, bucket, _, u, url := serveOne(t)
	contentType, form := testkit.Form(testkit.PNG(testkit.Gradient(20, 20, 1)),
		map[string][]string{"name": {"Ada"}, "email": {u.Email}})
	status, body, err := testkit.Send(http.DefaultClient, "POST", url+"/user", contentType, form)
	if status != http.StatusConflict || bucket.Calls("PutObject") != 1 {
		t.Errorf("POST /user: status %d %s, error %v, %d images stored; want 409 and 1", status, body, err,
			bucket.Calls("PutObject"))
	}
	testkit.Eventually(t, "the image is deleted", func() error {
		if keys := bucket.Keys(); len(keys) > 0 {
			return fmt.Errorf("%q are left", keys)
		}
		return nil
	})
}

// TestDeleteUser: all images of a deleted user are deleted: the current one, one that a crash left without a
// pointer, and one that is uploaded meanwhile. One without a pointer yet stays for the upload that stored it.
func TestDeleteUser(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	store := openTestLocal(t, dir)
	users := &uploadedMeanwhile{Users: localUsers{store}, images: localAvatars{store}}
	s := newTestServer(config{}, users, localAvatars{store}, nil)
	u, orphan, current, early := testUser("ada@example.com"), newKey(), testAvatar(nil), newKey()
	u.Avatar = current
	wantError(t, localUsers{store}.Create(t.Context(), u), nil)
	for _, key := range []string{orphan, current.Key, thumbnailKey(current.Key), early} {
		wantError(t, localAvatars{store}.Put(t.Context(), u.ID, key, "", nil), nil)
	}
	old := time.Now().Add(-2 * staleAfter)
	wantError(t, os.Chtimes(filepath.Join(dir, avatarKey(u.ID, orphan)), old, old), nil)
	if w := request(t, s, "DELETE /users/"+u.ID, nil); w.Code != http.StatusNoContent {
		t.Errorf("DELETE: status %d %s, want 204", w.Code, w.Body)
	}
	s.background.Wait()
	left := testkit.Must(filepath.Glob(filepath.Join(dir, "avatars", "*", "*")))
	if want := []string{filepath.Join(dir, avatarKey(u.ID, early))}; !slices.Equal(left, want) || !users.uploaded {
		t.Errorf("images of the deleted user: %q, want %q", left, want)
	}
}

// TestDeleteUserFails: a user stays until the images are deleted, so that the deletion can be repeated.
func TestDeleteUserFails(t *testing.T) {
	t.Parallel()
	_, bucket, users, u, url := serveOne(t)
	send := func(method, path string, body []byte, want int) {
		t.Helper()
		if status, body, err := testkit.Send(http.DefaultClient, method, url+"/users/"+u.ID+path, "",
			body); status != want {
			t.Errorf("%s %s: status %d %s, error %v, want %d", method, path, status, body, err, want)
		}
	}
	send("PUT", "/avatar", testkit.PNG(testkit.Gradient(20, 20, 1)), http.StatusOK)
	bucket.Always("DeleteObject", testkit.Fault{Status: 403, Code: "AccessDenied"})
	send("DELETE", "", nil, http.StatusServiceUnavailable)
	if _, err := users.Get(t.Context(), u.ID); err != nil {
		t.Errorf("the user after a failed deletion: error %v, want none", err)
	}
	bucket.Clear()
	send("DELETE", "", nil, http.StatusNoContent)
	if keys := bucket.Keys(); len(keys) > 0 {
		t.Errorf("objects of the deleted user: %q, want none", keys)
	}
}

// An uploadedMeanwhile store gets an image just before it deletes a user.
type uploadedMeanwhile struct {
	Users
	images   Avatars
	uploaded bool
}

func (s *uploadedMeanwhile) Delete(ctx context.Context, u User, c Condition) (User, error) {
	a := testAvatar(nil)
	_, _, err := s.Users.Update(ctx, u.ID, Change{Avatar: a, At: now()}, Condition{})
	s.uploaded = errors.Join(err, s.images.Put(ctx, u.ID, a.Key, a.Type, nil)) == nil
	return s.Users.Delete(ctx, u, c)
}

// TestInvalidItems: what another program wrote into the table, or did not finish, is left out of lists, logged and
// counted. PATCH and PUT repair what they can, DELETE removes it.
func TestInvalidItems(t *testing.T) {
	t.Parallel()
	dynamo, bucket := testkit.NewDynamoDB(t), testkit.NewS3(t)
	dynamo.Page(3)
	users, avatars := openTestAWS(t, dynamo.URL, bucket.URL)
	var log strings.Builder
	m := newMetrics(build{})
	s := newServer(config{MaxAvatarBytes: 1 << 20}, users, avatars, nil, slog.New(slog.NewTextHandler(&log, nil)), m,
		build{})
	var status int
	send := func(method, path, contentType, body string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, path, strings.NewReader(body))
		r.Header.Set("Content-Type", contentType)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		status = w.Code
		return w
	}
	want := func(what string, code int) {
		t.Helper()
		if status != code {
			t.Errorf("%s: status %d, want %d", what, status, code)
		}
	}
	put := func(i item) {
		t.Helper()
		_, err := users.client.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: &users.table, Item: i})
		wantError(t, err, nil)
	}
	image := string(testkit.Files(t, "testdata")["ada.png"])
	change := map[string]func(item){
		"no email":               func(i item) { delete(i, "email") },
		"no name":                func(i item) { delete(i, "name") },
		"an empty name":          func(i item) { i["name"] = text("") },
		"no created_at":          func(i item) { delete(i, "created_at") },
		"a malformed created_at": func(i item) { i["created_at"] = text("yesterday") },
		"no updated_at":          func(i item) { delete(i, "updated_at") },
		"an image without a key": func(i item) {
			i["avatar"] = &types.AttributeValueMemberM{Value: item{"size": text("7")}}
		},
		"an image with a malformed size": func(i item) {
			i["avatar"] = avatarValue(Avatar{Key: "key", Type: "image/png",
				Size: -1})
		},
		"nothing": func(i item) { clear(i) },
	}
	repaired := map[string]string{"no name": "PATCH", "an empty name": "PATCH", "no updated_at": "PATCH",
		"an image without a key": "PUT", "an image with a malformed size": "PUT"}
	valid := map[string]bool{}
	for n := range 7 {
		u := testUser(fmt.Sprintf("user%d@example.com", n))
		wantError(t, users.Create(t.Context(), u), nil)
		valid[u.ID] = true
	}
	invalid := map[string]string{} // by id
	for name, change := range change {
		i := itemOf(testUser(name + "@example.com"))
		id := i["id"]
		change(i)
		i["id"] = id
		put(i)
		invalid[textOf(id)] = name
	}
	put(item{"id": text("config"), "name": text("a"), "email": text("b"), "created_at": timestamp(now()),
		"updated_at": timestamp(now())})
	put(item{"id": text("0f8fad5b-d9cb-469f-a165-70867728950e"), "value": text("a UUID of another version")})

	wantListed := func(ids map[string]bool, query string) {
		t.Helper()
		for range 20 {
			w := send("GET", "/users"+query, "", "")
			var page []userJSON
			wantError(t, json.Unmarshal(w.Body.Bytes(), &page), nil)
			for _, u := range page {
				if !ids[u.ID] {
					t.Errorf("GET /users%s has %s", query, u.ID)
				}
				delete(ids, u.ID)
			}
			_, next, more := strings.Cut(w.Header().Get("Link"), "/users")
			if !more {
				break
			}
			query, _, _ = strings.Cut(next, ">")
		}
		if len(ids) > 0 {
			t.Errorf("GET /users%s lacks %v", query, ids)
		}
	}
	for _, query := range []string{"", "?limit=1", "?limit=3", "?limit=7", "?limit=100"} {
		wantListed(maps.Clone(valid), query)
	}
	for id, name := range invalid {
		if !strings.Contains(log.String(), id) {
			t.Errorf("the log does not name %s, which has %s", id, name)
		}
	}
	if !strings.Contains(log.String(), "level=ERROR") || !strings.Contains(log.String(), "config") {
		t.Errorf("the log does not name the foreign item: %s", &log)
	}
	w := httptest.NewRecorder()
	m.handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if logged := strings.Count(log.String(), "left out"); !strings.Contains(w.Body.String(),
		fmt.Sprintf("roster_invalid_items_total %d\n", logged)) {
		t.Errorf("the metric does not count %d items left out", logged)
	}

	for id, name := range invalid {
		send("GET", "/users/"+id, "", "")
		want("GET of a user with "+name, http.StatusInternalServerError)
		switch repaired[name] {
		case "PATCH":
			send("PATCH", "/users/"+id, "application/json", `{"name":"Ada"}`)
			want("PATCH of a user with "+name, http.StatusOK)
		case "PUT":
			send("PUT", "/users/"+id+"/avatar", "", image)
			want("PUT of the image of a user with "+name, http.StatusOK)
		}
		if repaired[name] != "" {
			send("GET", "/users/"+id, "", "")
			want("GET of a repaired user who had "+name, http.StatusOK)
		}
		send("DELETE", "/users/"+id, "", "")
		want("DELETE of a user with "+name, http.StatusNoContent)
		send("GET", "/users/"+id, "", "")
		want("GET of a deleted user with "+name, http.StatusNotFound)
	}

	// A time in another form of RFC 3339 is valid.
	u := testUser("zone@example.com")
	i := itemOf(u)
	i["created_at"] = text("2026-02-03T05:05:06.007+01:00")
	put(i)
	send("GET", "/users/"+u.ID, "", "")
	want("GET of a user with a time in another zone", http.StatusOK)
	send("DELETE", "/users/"+u.ID, "", "")
	want("DELETE of a user with a time in another zone", http.StatusNoContent)
	send("GET", "/users/"+u.ID, "", "")
	want("GET of the deleted user with a time in another zone", http.StatusNotFound)
}

// TestDamagedRecord: a damaged record of the embedded store is left out of lists, and DELETE removes it. Nothing else
// replaces it.
func TestDamagedRecord(t *testing.T) {
	t.Parallel()
	store, err := openLocal(t.TempDir(), newMetrics(build{}))
	wantError(t, err, nil)
	t.Cleanup(func() { store.Close() })
	users := localUsers{store}
	s := newServer(config{}, users, localAvatars{store}, nil, slog.New(slog.DiscardHandler), newMetrics(build{}),
		build{})
	u, damaged := testUser("anna@example.com"), testUser("ben@example.com")
	wantError(t, users.Create(t.Context(), u), nil)
	nameless := testUser("cleo@example.com")
	nameless.Name, nameless.Avatar = "", testAvatar([]byte("image"))
	wantError(t, store.write(t.Context(), func(b *bolt.Bucket) error {
		if err := b.Put([]byte(damaged.ID), encodeRecord(damaged)[:20]); err != nil {
			return err
		}
		return b.Put([]byte(nameless.ID), encodeRecord(nameless))
	}), nil)
	for _, step := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/users", "", 200, u.ID},
		{"GET", "/users/" + damaged.ID, "", 500, ""},
		{"PATCH", "/users/" + damaged.ID, `{"name":"Ben"}`, 500, ""},
		{"GET", "/users/" + damaged.ID, "", 500, ""},
		{"DELETE", "/users/" + damaged.ID, "", 204, ""},
		{"GET", "/users/" + damaged.ID, "", 404, ""},
		{"DELETE", "/users/" + nameless.ID, "", 204, ""},
		{"GET", "/users/" + nameless.ID, "", 404, ""},
		{"GET", "/users", "", 200, u.ID},
	} {
		r := httptest.NewRequest(step.method, step.path, strings.NewReader(step.body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		body := w.Body.String()
		if w.Code != step.status || !strings.Contains(body, step.want) || step.path == "/users" &&
			strings.Contains(body, damaged.ID) {
			t.Errorf("%s %s: status %d, want %d: %s", step.method, step.path, w.Code, step.status, body)
		}
	}
}

func TestCleanName(t *testing.T) {
	for _, test := range []struct {
		name, in, want string // want empty: rejected
	}{
		{"plain", "Ada Lovelace", "Ada Lovelace"},
		{"trimmed", " \t\u00a0Ada\u3000\n", "Ada"},
		{"one character", "A", "A"},
		{"longest", strings.Repeat("ä", 200), strings.Repeat("ä", 200)},
		{"longest after trimming", strings.Repeat(" ", 500) + strings.Repeat("x", 200), strings.Repeat("x", 200)},
		{"too long", strings.Repeat("x", 201), ""},
		{"normalized", "Zoe\u0308", "Zo\u00eb"},
		{"as long as that after normalization", strings.Repeat("e\u0308", 200), strings.Repeat("\u00eb", 200)},
		{"empty", "", ""},
		{"blank", " \u2003 ", ""},
		{"control character", "Ada\x00", ""},
		{"line break within", "Ada\nLovelace", ""},
		{"C1 control character", "Ada\u0085x", ""},
		{"broken escape", "Ada\ufffd", ""},
		{"markup is text", "<b>Ada</b>", "<b>Ada</b>"},
		{"right to left", "عدا", "عدا"},
		{"emoji with joiners", "👩‍💻", "👩‍💻"},
		{"zero width space", "\u200b", ""},
		{"Hangul filler", "\u3164", ""},
		{"empty Braille pattern", "\u2800", ""},
		{"soft hyphen", "\u00ad", ""},
		{"invisible among visible", "A\u00adda", "A\u00adda"},
		{"bidirectional override", "Ada\u202egnp", ""},
		{"bidirectional isolate", "Ada\u2067gnp", ""},
		{"emoji newer than Go's tables", "\U0001fae9", "\U0001fae9"},
		{"script newer than Go's tables", "\U00010d50\U00010d70", "\U00010d50\U00010d70"},
		{"private use alone", "\ue000", ""},
		{"never a character", "\ufdd0", ""},
		{"unassigned, but never shown", "\u2065", ""},
		{"tag character", "\U000e0041", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, fault := cleanField(test.in, cleanName)
			if got != test.want || (fault == nil) != (test.want != "") {
				t.Errorf("name %q: %q, error %v; want %q", test.in, got, fault, test.want)
			}
		})
	}
}

func FuzzName(f *testing.F) {
	for _, seed := range []string{"Ada", " Ada ", "Zoe\u0308", "\u0344", "\u0085a", strings.Repeat("\u0958", 200)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		if !utf8.ValidString(in) {
			return // rejected before, see form.set
		}
		name, fault := cleanField(in, cleanName)
		if fault != nil {
			return
		}
		if n := utf8.RuneCountInString(name); n < 1 || n > maxNameLength || !norm.NFC.IsNormalString(name) ||
			strings.TrimSpace(name) != name {
			t.Errorf("%q passes as a name", name)
		}
		if again, fault := cleanName(name); fault != nil || again != name {
			t.Errorf("%q is accepted as %q, which is %v", in, name, fault)
		}
	})
}
