package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
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

	// staleAfter is the age of an orphan: an object without a pointer. An upload stores
	// its object and sets the pointer within putTimeout and callTimeout, 25 seconds.
	staleAfter = time.Minute
)

// userJSON is a user in the API.
type userJSON struct {
	ID           string `json:"id"`
	Name         string `json:"name"`
	Email        string `json:"email"`
	AvatarURL    string `json:"avatar_url,omitempty"`
	ThumbnailURL string `json:"thumbnail_url,omitempty"`
	CreatedAt    string `json:"created_at"`
	UpdatedAt    string `json:"updated_at"`
}

func (s *server) userJSON(u User) userJSON {
	j := userJSON{
		ID: u.ID, Name: u.Name, Email: u.Email,
		CreatedAt: u.CreatedAt.Format(timeFormat),
		UpdatedAt: u.UpdatedAt.Format(timeFormat),
	}
	if u.Avatar != nil {
		j.AvatarURL = s.imageURL(u.ID, "avatar", u.Avatar.Key)
		j.ThumbnailURL = s.imageURL(u.ID, "thumbnail", u.Avatar.Key)
	}
	return j
}

// writeUser sends a user that the request's URL or the Location names.
func (s *server) writeUser(w *response, status int, u User) error {
	w.Header().Set("ETag", strconv.Quote(u.ETag))
	return w.sendJSON(status, s.userJSON(u))
}

// listUsers answers GET /users: the user with an email, a page, or all users, sent while they are read.
func (s *server) listUsers(w *response, r *http.Request) error {
	limit, after, email, err := parseListQuery(r.URL.RawQuery)
	if err != nil {
		return err
	}
	if email != "" {
		return s.findUser(w, r, email)
	}
	size := limit + 1 // one more: a Link is sent only if there are more
	if limit == 0 && r.Method == http.MethodGet {
		size = 0 // as many as one read returns
	}
	w.Header().Set("Content-Type", "application/json")
	out := bufio.NewWriterSize(w, 32<<10)
	encoder := json.NewEncoder(out)
	out.WriteByte('[')
	separator := ""
	for more := true; more; {
		page, next, err := s.users.Page(r.Context(), after, size)
		if err != nil {
			return err
		}
		if limit > 0 && len(page) > limit {
			page, next = page[:limit], page[limit-1].ID
		}
		if limit > 0 && next != "" {
			w.Header().Set("Link", fmt.Sprintf(`<%s/users?cursor=%s&limit=%d>; rel="next"`, s.PublicURL, next, limit))
		}
		for _, u := range page {
			out.WriteString(separator)
			if err := encoder.Encode(s.userJSON(u)); err != nil {
				return err
			}
			separator = ","
		}
		after, more = next, next != "" && size == 0
	}
	out.WriteString("]\n")
	return out.Flush()
}

// findUser answers GET /users?email=E with an array of one or none.
func (s *server) findUser(w *response, r *http.Request, email string) error {
	u, err := s.users.Get(r.Context(), userID(email))
	if errors.Is(err, ErrNotFound) {
		return w.sendJSON(http.StatusOK, []userJSON{})
	}
	if err != nil {
		return err
	}
	return w.sendJSON(http.StatusOK, []userJSON{s.userJSON(u)})
}

// parseListQuery returns the limit of a page (0: the whole list), the id before it, and the email to find.
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
	name, email := f.parse("name", cleanName), f.parse("email", cleanEmail)
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
	if exists && u.Avatar != nil {
		s.discard(u.ID, u.Avatar.Key) // after any other error the write may still take effect
	}
	if exists || err == nil {
		w.Header().Set("Location", s.PublicURL+"/users/"+u.ID)
	}
	if err != nil {
		return err
	}
	return s.writeUser(w, http.StatusCreated, u)
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
	return s.writeUser(w, http.StatusOK, u)
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
	return s.writeUser(w, http.StatusOK, u)
}

// deleteUser answers DELETE /users/{id}. The pointer goes first, so that no reader follows it, then the images,
// and the user last: a deletion that failed half-way can be repeated.
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
		if err := s.avatars.Delete(ctx, ImageName{id, u.Removed}); err != nil {
			return err
		}
	}
	if err := s.avatars.DeleteStale(ctx, id, time.Now().Add(-staleAfter)); err != nil {
		return err
	}
	last, err := s.users.Delete(ctx, u, c)
	if err != nil && !errors.Is(err, ErrNotFound) { // else a concurrent request completed the deletion
		return err
	}
	if key := last.imageKey(); key != "" && key != u.Removed {
		s.discard(id, key) // uploaded meanwhile
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// cleanName returns a name as it is stored: in NFC, so that equal looks are equal bytes.
func cleanName(name string) (string, error) {
	name = norm.NFC.String(name)
	n := utf8.RuneCountInString(name)
	misleading := func(r rune) bool { // with overrides of direction, a name displays as another one (UAX #9)
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

// visible excludes what is blank: spaces, what Unicode calls default ignorable, and the empty Braille pattern.
func visible(r rune) bool {
	ignorable := unicode.In(r, unicode.C, unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point)
	return !ignorable && !unicode.Is(unicode.Z, r) && r != 0x2800
}
