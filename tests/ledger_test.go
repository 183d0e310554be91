package tests

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"roster/internal/testkit"
)

// A state is one user, as the API shows it. The zero state is a missing user.
type state struct {
	name  string
	image string // SHA-256 of the image; "" without one
}

// A change is a request and the state of its user afterwards.
type change struct {
	sent, answered time.Time // answered is zero without a response
	after          state
}

// A ledger has the changes of one user, in order. Only one client makes them.
type ledger struct {
	email   string
	changes []change
}

// current returns the state after the last change.
func (l *ledger) current() state {
	if len(l.changes) == 0 {
		return state{}
	}
	return l.changes[len(l.changes)-1].after
}

// possible returns the states that the user may have if the service ended between two times: the last one
// acknowledged before, and those of the requests in flight.
func (l *ledger) possible(from, to time.Time) []state {
	states := []state{{}}
	for _, c := range l.changes {
		switch {
		case !c.answered.IsZero() && c.answered.Before(from):
			states = []state{c.after}
		case c.sent.Before(to):
			if c.after == (state{}) { // the image is removed before its user
				states = append(states, state{name: states[len(states)-1].name})
			}
			states = append(states, c.after)
		}
	}
	return states
}

// send makes a change. It reports whether there was a response.
func (l *ledger) send(
	t testing.TB, c *loadClient, after state, want int, method, path, contentType string, body []byte,
) bool {
	t.Helper()
	l.changes = append(l.changes, change{sent: time.Now(), after: after})
	status, response, err := c.send(method, path, contentType, body)
	if err != nil {
		return false
	}
	l.changes[len(l.changes)-1].answered = time.Now()
	if status != want {
		t.Errorf("%s %s of %s: status %d, want %d: %s", method, path, l.email, status, want, response)
	}
	return true
}

func (l *ledger) path() string { return "/users/" + userID(l.email) }

// create creates the user, with an image unless it is nil.
func (l *ledger) create(t testing.TB, c *loadClient, image []byte) bool {
	t.Helper()
	contentType, body := createForm("new", l.email, image)
	return l.send(t, c, state{"new", imageSum(image)}, http.StatusCreated, "POST", "/user", contentType, body)
}

func (l *ledger) upload(t testing.TB, c *loadClient, image []byte) bool {
	t.Helper()
	after := state{l.current().name, imageSum(image)}
	return l.send(t, c, after, http.StatusOK, "PUT", l.path()+"/avatar", "", image)
}

func (l *ledger) rename(t testing.TB, c *loadClient, name string) bool {
	t.Helper()
	body := fmt.Appendf(nil, `{"name":%q}`, name)
	return l.send(t, c, state{name, l.current().image}, http.StatusOK, "PATCH", l.path(), "application/json", body)
}

func (l *ledger) removeImage(t testing.TB, c *loadClient) bool {
	t.Helper()
	return l.send(t, c, state{name: l.current().name}, http.StatusNoContent, "DELETE", l.path()+"/avatar", "", nil)
}

func (l *ledger) remove(t testing.TB, c *loadClient) bool {
	t.Helper()
	return l.send(t, c, state{}, http.StatusNoContent, "DELETE", l.path(), "", nil)
}

// thumbnail requests the thumbnail, which the service then stores.
func (l *ledger) thumbnail(t testing.TB, c *loadClient) (sum string, answered bool) {
	t.Helper()
	status, thumbnail, err := c.send("GET", l.path()+"/thumbnail", "", nil)
	if err != nil {
		return "", false
	}
	if status != http.StatusOK {
		t.Errorf("thumbnail of %s: status %d, want 200", l.email, status)
	}
	return imageSum(thumbnail), true
}

// ledgerImages are the images that changeAny uploads. They are stored byte for byte.
var ledgerImages = sync.OnceValue(func() [][]byte {
	return [][]byte{
		testkit.PNG(testkit.Gradient(40, 40, 1)),
		testkit.PNG(testkit.Gradient(300, 300, 5)),
		testkit.JPEG(testkit.Gradient(50, 50, 3)),
	}
})

// changeAny makes a random change to a new user with this email, or to one of *ledgers. It reports whether there
// was a response.
func changeAny(t testing.TB, c *loadClient, ledgers *[]*ledger, email string) bool {
	t.Helper()
	images := ledgerImages()
	image := images[rand.IntN(len(images))]
	kind := rand.IntN(12)
	if kind < 4 || len(*ledgers) == 0 {
		l := &ledger{email: email}
		*ledgers = append(*ledgers, l)
		if kind < 2 {
			image = nil
		}
		return l.create(t, c, image)
	}
	l := (*ledgers)[rand.IntN(len(*ledgers))]
	switch current := l.current(); {
	case current == (state{}):
		return true // deleted
	case kind < 7:
		return l.upload(t, c, image)
	case kind == 7:
		return l.rename(t, c, fmt.Sprint("renamed ", rand.IntN(1000)))
	case kind == 8:
		return l.remove(t, c)
	case current.image == "":
		return true
	case kind == 9:
		return l.removeImage(t, c)
	}
	_, answered := l.thumbnail(t, c)
	return answered
}

// checkLedgers compares all users and images with what they may be if the service ended between two times. It
// returns their states, by email.
func checkLedgers(t testing.TB, c *loadClient, ledgers []*ledger, from, to time.Time) map[string]state {
	t.Helper()
	status, body, err := c.send("GET", "/users", "", nil)
	var users []userJSON
	if err != nil || status != http.StatusOK || json.Unmarshal(body, &users) != nil {
		t.Fatalf("GET /users: status %d, error %v", status, err)
	}
	stored := map[string]state{}
	for _, u := range users {
		if _, twice := stored[u.Email]; twice {
			t.Errorf("%s is listed twice", u.Email)
		}
		stored[u.Email] = state{name: u.Name}
		if u.AvatarURL == "" {
			continue
		}
		status, image, err := c.send("GET", u.AvatarURL, "", nil)
		if err != nil || status != http.StatusOK {
			stored[u.Email] = state{u.Name, fmt.Sprintf("status %d, error %v", status, err)}
			continue
		}
		stored[u.Email] = state{u.Name, imageSum(image)}
	}
	expected := map[string]bool{}
	for _, l := range ledgers {
		expected[l.email] = true
		if states := l.possible(from, to); !slices.Contains(states, stored[l.email]) {
			t.Errorf("%s is %.20q, want one of %.20q", l.email, stored[l.email], states)
		}
	}
	for email := range stored {
		if !expected[email] {
			t.Errorf("unexpected user %s", email)
		}
	}
	return stored
}

// imageSum returns the SHA-256 of an image, or "" without one.
func imageSum(image []byte) string {
	if image == nil {
		return ""
	}
	return sha256Hex(image)
}
