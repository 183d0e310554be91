package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

const (
	maxPage       = 1000 // users
	defaultPage   = 100  // users of a page without a limit
	maxNameLength = 200  // characters
	maxLists      = 64   // whole lists in flight: each holds a page of the store

	staleAfter = time.Minute // age of an orphan: an upload takes putTimeout and callTimeout at most
)

// appendUser appends a user as JSON: the bytes of encoding/json, in a quarter of its time.
func (s *server) appendUser(b []byte, u User) []byte {
	b = appendText(append(b, `{"id":`...), u.ID)
	b = appendText(append(b, `,"name":`...), u.Name)
	b = appendText(append(b, `,"email":`...), u.Email)
	if u.Avatar.Key != "" {
		b = appendText(append(b, `,"avatar_url":`...), s.imageURL(u.ID, "avatar", u.Avatar.Key))
		b = appendText(append(b, `,"thumbnail_url":`...), s.imageURL(u.ID, "thumbnail", u.Avatar.Key))
	}
	b = u.CreatedAt.AppendFormat(append(b, `,"created_at":"`...), timeFormat)
	b = u.UpdatedAt.AppendFormat(append(b, `","updated_at":"`...), timeFormat)
	return append(b, `"}`...)
}

// appendText appends a JSON string. Plain ASCII is copied; encoding/json escapes the rest.
func appendText(b []byte, text string) []byte {
	for i := range len(text) {
		switch c := text[i]; {
		case c < ' ', c > '~', c == '"', c == '\\', c == '<', c == '>', c == '&':
			escaped, _ := json.Marshal(text)
			return append(b, escaped...)
		}
	}
	b = append(append(b, '"'), text...)
	return append(b, '"')
}

// sendUser sends a user.
func (s *server) sendUser(w *response, status int, u User) error {
	if err := u.check(); err != nil {
		return err
	}
	return w.sendBody(status, "application/json", append(s.appendUser(nil, u), '\n'))
}

// listUsers answers GET /users: the user with an email, a page, or all users.
func (s *server) listUsers(w *response, r *http.Request) error {
	limit, after, email, err := parseListQuery(r.URL.RawQuery)
	switch {
	case err != nil:
		return err
	case email != "":
		return s.findUser(w, r, email)
	case limit > 0:
		return s.sendPage(w, r, after, limit)
	}
	return s.streamUsers(w, r)
}

// findUser answers GET /users?email=E with an array of one or none.
func (s *server) findUser(w *response, r *http.Request, email string) error {
	u, err := s.users.Get(r.Context(), userID(email))
	body := []byte{'['}
	switch {
	case err == nil:
		body = s.appendUser(body, u)
	case !errors.Is(err, ErrNotFound):
		return err
	}
	return w.sendBody(http.StatusOK, "application/json", append(body, "]\n"...))
}

// sendPage sends a page of users, with a Link if there are more.
func (s *server) sendPage(w *response, r *http.Request, after string, limit int) error {
	var page []User // of valid users: the last one is the cursor
	for {
		users, next, err := s.users.Page(r.Context(), after, limit+1-len(page))
		if err != nil {
			return err
		}
		page = append(page, s.validUsers(users)...)
		if next == "" || len(page) > limit {
			break
		}
		after = next
	}
	if len(page) > limit {
		page = page[:limit]
		link := fmt.Sprintf(`<%s/users?cursor=%s&limit=%d>; rel="next"`, s.PublicURL, page[limit-1].ID, limit)
		w.Header().Set("Link", link)
	}
	list := s.newUserList(w)
	list.add(page) // end returns its error
	return list.end()
}

// streamUsers sends all users while it reads them.
func (s *server) streamUsers(w *response, r *http.Request) error {
	defer s.lists.Add(-1)
	if s.lists.Add(1) > maxLists {
		return overloaded("%d whole lists are in flight", maxLists)
	}
	list := s.newUserList(w)
	if r.Method == http.MethodHead { // nothing is written: net/http would take its length for the list's
		_, _, err := s.users.Page(r.Context(), "", 1)
		return err
	}
	err := s.users.List(r.Context(), func(page []User) error { return list.add(s.validUsers(page)) })
	if err != nil {
		return err
	}
	return list.end()
}

// validUsers returns the valid users of a page.
func (s *server) validUsers(page []User) []User {
	return slices.DeleteFunc(page, func(u User) bool {
		err := u.check()
		if err != nil {
			s.metrics.invalidItems.Inc()
			s.log.Error("item left out of the list", "error", err)
		}
		return err != nil
	})
}

// A userList sends users as a JSON array, a line each. Clients have writeTimeout for each 32 KiB.
type userList struct {
	server    *server
	out       *bufio.Writer
	separator string
}

func (s *server) newUserList(w *response) *userList {
	w.Header().Set("Content-Type", "application/json")
	list := &userList{server: s, out: bufio.NewWriterSize(w, 32<<10)}
	list.out.WriteByte('[')
	return list
}

func (list *userList) add(users []User) error {
	for _, u := range users {
		list.out.WriteString(list.separator)
		list.separator = ","
		line := append(list.server.appendUser(list.out.AvailableBuffer(), u), '\n')
		if _, err := list.out.Write(line); err != nil {
			return err
		}
	}
	return nil
}

func (list *userList) end() error {
	list.out.WriteString("]\n")
	return list.out.Flush()
}

// parseListQuery returns the limit of a page (0: the whole list), the id before it, and the email.
func parseListQuery(query string) (limit int, after, email string, err error) {
	f := &form{fields: map[string]string{}, allowed: []string{"limit", "cursor", "email"}}
	if err := f.readURLEncoded(query); err != nil {
		return 0, "", "", err
	}
	if text, ok := f.fields["limit"]; ok {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > maxPage {
			f.fault("limit", "must be a number from 1 to %d, not %.40q", maxPage, text)
		}
	}
	if _, ok := f.fields["cursor"]; ok {
		after = f.parse("cursor", parseID)
		limit = cmp.Or(limit, defaultPage)
	}
	if _, ok := f.fields["email"]; ok {
		email = f.parse("email", cleanEmail)
		if len(f.fields) > 1 {
			f.fault("email", "cannot be combined with other parameters")
		}
	}
	return limit, after, email, f.err()
}

// createUser answers POST /user.
func (s *server) createUser(w *response, r *http.Request) error {
	accepted := []string{"application/json", "application/x-www-form-urlencoded", "multipart/form-data"}
	f, err := s.readForm(w, r, accepted, "name", "email")
	if err != nil {
		return err
	}
	name := f.parse("name", cleanName)
	email := f.parse("email", cleanEmail)
	if err := f.err(); err != nil {
		return err
	}
	u := User{ID: userID(email), Name: name, Email: email, ETag: newKey(), CreatedAt: now()}
	u.UpdatedAt = u.CreatedAt
	w.user = u.ID
	if f.image != nil {
		if u.Avatar, err = s.putImage(r, u.ID, f.image); err != nil {
			return err
		}
	}
	err = s.users.Create(r.Context(), u)
	exists := errors.Is(err, ErrExists)
	if exists && u.Avatar.Key != "" {
		s.discard(u.ID, u.Avatar.Key) // after any other error the write may still take effect
	}
	if exists || err == nil {
		w.Header().Set("Location", s.PublicURL+"/users/"+u.ID)
	}
	if err != nil {
		return err
	}
	w.Header().Set("ETag", strconv.Quote(u.ETag))
	return s.sendUser(w, http.StatusCreated, u)
}

// getUser answers GET /users/{id}.
func (s *server) getUser(w *response, r *http.Request) error {
	u, err := s.users.Get(r.Context(), w.user)
	if err != nil {
		return err
	}
	if holds, err := w.answerCondition(u.ETag); !holds {
		return err
	}
	w.Header().Set("ETag", strconv.Quote(u.ETag))
	return s.sendUser(w, http.StatusOK, u)
}

// renameUser answers PATCH /users/{id}: a JSON merge patch (RFC 7396) of the name.
func (s *server) renameUser(w *response, r *http.Request) error {
	f, err := s.readForm(w, r, []string{"application/json", "application/merge-patch+json"}, "name")
	if err != nil {
		return err
	}
	name := f.parse("name", cleanName)
	if err := f.err(); err != nil {
		return err
	}
	_, u, err := s.users.Update(r.Context(), w.user, Change{Name: name, At: now()}, w.condition)
	if err != nil {
		return err
	}
	w.Header().Set("ETag", strconv.Quote(u.ETag))
	return s.sendUser(w, http.StatusOK, u)
}

// deleteUser answers DELETE /users/{id}. It takes the steps of Deletions in docs/architecture.md.
func (s *server) deleteUser(w *response, r *http.Request) error {
	ctx, id := r.Context(), w.user
	c := w.condition
	_, u, err := s.users.Update(ctx, id, Change{RemoveAvatar: true, At: now()}, c)
	if err != nil {
		return err
	}
	if c.Match != nil && !c.Match.any {
		c.Match = &tags{list: []string{u.ETag}} // the update changed the ETag
	}
	if u.Removed != "" {
		if err := s.avatars.Delete(ctx, id, u.Removed); err != nil {
			return err
		}
	}
	if err := s.avatars.DeleteStale(ctx, id, time.Now().Add(-staleAfter)); err != nil {
		return err
	}
	last, err := s.users.Delete(ctx, u, c)
	if err != nil && !errors.Is(err, ErrNotFound) { // else a concurrent request did it
		return err
	}
	if key := cmp.Or(last.Avatar.Key, last.Removed); key != "" && key != u.Removed {
		s.discard(id, key) // uploaded meanwhile
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// cleanName returns a name as it is stored: in NFC, so that equal names are equal bytes.
func cleanName(name string) (string, error) {
	name = norm.NFC.String(name)
	n := utf8.RuneCountInString(name)
	misleading := func(r rune) bool { // a name may display as another (UAX #9)
		return unicode.IsControl(r) || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069
	}
	switch {
	case strings.ContainsFunc(name, misleading):
		return "", errors.New("must not contain control characters or bidirectional overrides")
	case n > maxNameLength || !strings.ContainsFunc(name, visible):
		return "", fmt.Errorf("must have 1 to %d characters, one of them visible; it has %d", maxNameLength, n)
	}
	return name, nil
}

// visible excludes what is blank: spaces, default ignorable characters, the empty Braille pattern.
func visible(r rune) bool {
	return !unicode.In(r, unprintable...) && !unicode.In(r, unicode.Variation_Selector, unicode.Z) && r != 0x2800
}
