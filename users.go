package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
)

const (
	maxPage     = 1000 // most users a page may have
	defaultPage = 100  // users of a page when only a cursor is given
)

// userJSON is a user as clients see it.
type userJSON struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Email     string `json:"email"`
	AvatarURL string `json:"avatar_url,omitempty"`
	CreatedAt string `json:"created_at"`
	UpdatedAt string `json:"updated_at"`
}

const timeFormat = "2006-01-02T15:04:05.000Z07:00" // RFC 3339 with milliseconds

func (s *server) userJSON(u User) userJSON {
	j := userJSON{
		ID: u.ID, Name: u.Name, Email: u.Email,
		CreatedAt: u.CreatedAt.Format(timeFormat),
		UpdatedAt: u.UpdatedAt.Format(timeFormat),
	}
	if u.Avatar != nil {
		j.AvatarURL = s.PublicURL + "/users/" + u.ID + "/avatar?v=" + u.Avatar.version()
	}
	return j
}

func newEncoder(w io.Writer) *json.Encoder {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false) // answers are never HTML, and nosniff keeps it so
	return e
}

func (s *server) writeUser(w http.ResponseWriter, status int, u User) error {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	newEncoder(w).Encode(s.userJSON(u)) // an error means that the client is gone
	return nil
}

// pathID returns the id in the path in its stored form. What is no id is no
// user either.
func pathID(r *http.Request) (string, error) {
	id, ok := parseID(r.PathValue("id"))
	if !ok {
		return "", ErrNotFound
	}
	return formatID(id), nil
}

// listUsers answers GET /users: all users, or a page of them.
func (s *server) listUsers(w http.ResponseWriter, r *http.Request) error {
	limit, after, err := pageOf(r.URL.RawQuery)
	if err != nil {
		return err
	}
	if limit > 0 {
		return s.listPage(w, r, limit, after)
	}
	w.Header().Set("Content-Type", "application/json")
	if r.Method == http.MethodHead {
		return nil // not worth reading the whole list for
	}
	// Until the first flush a failure can still be answered properly; after it
	// only a broken connection tells that the list is not whole.
	out := bufio.NewWriterSize(w, 32<<10)
	encoder := newEncoder(out)
	separator := byte('[')
	for u, err := range s.users.List(r.Context(), "", 0) {
		if err != nil {
			return err
		}
		out.WriteByte(separator)
		if err := encoder.Encode(s.userJSON(u)); err != nil {
			return err
		}
		separator = ','
	}
	if separator == '[' {
		out.WriteByte('[')
	}
	out.WriteString("]\n")
	return out.Flush()
}

// listPage answers with one page. It asks for one user more than the page has,
// so that it says "next" only if there is more.
func (s *server) listPage(w http.ResponseWriter, r *http.Request, limit int, after string) error {
	page := make([]userJSON, 0, min(limit, 64))
	for u, err := range s.users.List(r.Context(), after, limit+1) {
		if err != nil {
			return err
		}
		if len(page) == limit {
			next := url.Values{"limit": {strconv.Itoa(limit)}, "cursor": {formatCursor(page[limit-1].ID)}}
			w.Header().Set("Link", fmt.Sprintf(`<%s/users?%s>; rel="next"`, s.PublicURL, next.Encode()))
			break
		}
		page = append(page, s.userJSON(u))
	}
	w.Header().Set("Content-Type", "application/json")
	return newEncoder(w).Encode(page)
}

// pageOf reads limit and cursor from a query. A limit of 0 stands for the whole
// list.
func pageOf(query string) (limit int, after string, err error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return 0, "", badRequest("the query cannot be read: %v", err)
	}
	var errs []fieldError
	for _, name := range slices.Sorted(maps.Keys(values)) {
		v := values[name]
		switch {
		case name != "limit" && name != "cursor":
			errs = append(errs, fieldError{quoteField(name), "unknown parameter; the parameters are limit, cursor"})
		case len(v) > 1:
			errs = append(errs, fieldError{name, "sent more than once"})
		case name == "limit":
			if limit, err = strconv.Atoi(v[0]); err != nil || limit < 1 || limit > maxPage {
				errs = append(errs, fieldError{name, fmt.Sprintf("must be a number from 1 to %d, not %q", maxPage, abbreviate(v[0]))})
			}
		case name == "cursor":
			var ok bool
			if after, ok = parseCursor(v[0]); !ok {
				errs = append(errs, fieldError{name, fmt.Sprintf("must be a cursor from a Link header, not %q", abbreviate(v[0]))})
			}
		}
	}
	if len(errs) > 0 {
		return 0, "", badFields(errs...)
	}
	if limit == 0 && after != "" {
		limit = defaultPage
	}
	return limit, after, nil
}

// abbreviate shortens what a client sent for a message that quotes it.
func abbreviate(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}

// createUser answers POST /user.
func (s *server) createUser(w http.ResponseWriter, r *http.Request) error {
	f, release, err := s.readUserForm(w, r)
	defer release()
	if err != nil {
		return err
	}
	name, nameErr := cleanName(f.fields["name"])
	email, emailErr := cleanEmail(f.fields["email"])
	var errs []fieldError
	for _, e := range []*fieldError{nameErr, emailErr} {
		if e != nil {
			errs = append(errs, *e)
		}
	}
	if len(errs) > 0 {
		return badFields(errs...)
	}
	u := User{ID: userID(email), Name: name, Email: email, CreatedAt: now()}
	u.UpdatedAt = u.CreatedAt
	if f.image != nil {
		err = s.createWithAvatar(r, &u, f.image)
	} else {
		err = s.users.Create(r.Context(), u)
	}
	if err != nil {
		return err
	}
	w.Header().Set("Location", s.PublicURL+"/users/"+u.ID)
	return s.writeUser(w, http.StatusCreated, u)
}

// readUserForm reads the fields of a new user in any of the three content types.
// release gives up the memory that an image was allowed, and is never nil.
func (s *server) readUserForm(w http.ResponseWriter, r *http.Request) (f form, release func(), err error) {
	release = func() {}
	mediaType, params, err := contentType(r)
	if err != nil {
		return f, release, err
	}
	var data []byte
	switch mediaType {
	case "application/json":
		if data, err = readAll(w, r, maxFormBytes); err == nil {
			f, err = readJSON(data, "name", "email")
		}
	case "application/x-www-form-urlencoded":
		if data, err = readAll(w, r, maxFormBytes); err == nil {
			f, err = readURLEncoded(data, "name", "email")
		}
	case "multipart/form-data":
		return s.readUpload(w, r, params["boundary"], "name", "email")
	default:
		err = unsupported("Content-Type must be application/json, application/x-www-form-urlencoded or multipart/form-data, not %q", abbreviate(mediaType))
	}
	return f, release, err
}

// getUser answers GET /users/{id}.
func (s *server) getUser(w http.ResponseWriter, r *http.Request) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	u, err := s.users.Get(r.Context(), id)
	if err != nil {
		return err
	}
	return s.writeUser(w, http.StatusOK, u)
}

// renameUser answers PATCH /users/{id}: a JSON merge patch (RFC 7396) whose only
// member is the name.
func (s *server) renameUser(w http.ResponseWriter, r *http.Request) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	mediaType, _, err := contentType(r)
	if err != nil {
		return err
	}
	if mediaType != "application/json" && mediaType != "application/merge-patch+json" {
		p := unsupported("Content-Type must be application/json or application/merge-patch+json, not %q", abbreviate(mediaType))
		p.header.Set("Accept-Patch", "application/json, application/merge-patch+json") // RFC 5789, section 2.2
		return p
	}
	data, err := readAll(w, r, maxFormBytes)
	if err != nil {
		return err
	}
	f, err := readJSON(data, "name", "email")
	if err != nil {
		return err
	}
	if _, sent := f.fields["email"]; sent {
		return badField("email", "cannot be changed, since the id is made from it; create another user instead")
	}
	name, fault := cleanName(f.fields["name"])
	if fault != nil {
		return badFields(*fault)
	}
	u, err := s.users.Rename(r.Context(), id, name, now())
	if err != nil {
		return err
	}
	return s.writeUser(w, http.StatusOK, u)
}

// deleteUser answers DELETE /users/{id}. The pointer goes first, so that no
// reader follows it to what is being removed, and the item last, so that a
// deletion that broke off is found and finished when it is repeated.
func (s *server) deleteUser(w http.ResponseWriter, r *http.Request) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	ctx := r.Context()
	u, err := s.users.Get(ctx, id)
	if err != nil {
		return err
	}
	if u.Avatar != nil {
		if _, err := s.users.SetAvatar(ctx, id, nil, now()); err != nil {
			return err
		}
	}
	if err := s.avatars.DeleteAll(ctx, id); err != nil {
		return err
	}
	before, err := s.users.Delete(ctx, id)
	if err != nil && !errors.Is(err, ErrNotFound) { // another deletion was faster
		return err
	}
	if before.Avatar != nil { // uploaded after DeleteAll had looked
		s.discard(ctx, id, before.Avatar.Key)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
