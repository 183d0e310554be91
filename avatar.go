package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// uploadBudget bounds the memory of all bodies that may hold an image at one
	// time. A body of unknown length counts three times, since its buffer grows
	// by being copied.
	uploadBudget = 96 << 20

	// uploadWait is how long an upload waits for its share of the budget before
	// it is refused; long enough for the one before to be stored.
	uploadWait = 2 * time.Second

	// discardTimeout is for removing an image that nothing points to.
	discardTimeout = 5 * time.Second

	// maxDiscards bounds the images that are being removed after the answer.
	maxDiscards = 64
)

// version changes when the image does: 64 bits of its hash for the avatar_url.
func (a Avatar) version() string { return a.SHA256[:16] }

// newAvatar describes an image that is about to be stored under a new key.
func newAvatar(mediaType string, image []byte) Avatar {
	sum := sha256.Sum256(image)
	return Avatar{
		Key:    strings.ToLower(rand.Text()),
		SHA256: hex.EncodeToString(sum[:]),
		Type:   mediaType,
		Size:   int64(len(image)),
	}
}

// reserveUpload waits for room for the request's body, and returns how to give
// it back. Nothing of the body has been read before.
func (s *server) reserveUpload(r *http.Request, limit int64) (release func(), err error) {
	need := r.ContentLength
	switch {
	case need > limit:
		return func() {}, tooLarge("the image may have at most %d bytes; a body of %d was announced", s.MaxAvatarBytes, need)
	case need < 0:
		need = 3 * limit
	}
	need = min(need, uploadBudget)
	wait, cancel := context.WithTimeout(r.Context(), uploadWait)
	defer cancel()
	if err := s.uploads.Acquire(wait, need); err != nil {
		return func() {}, cmp.Or(r.Context().Err(), error(overloaded("too many uploads are under way")))
	}
	s.metrics.uploadsInFlight.Inc()
	return func() {
		s.metrics.uploadsInFlight.Dec()
		s.uploads.Release(need)
	}, nil
}

// readUpload reads a multipart body that may have an image in it. release is
// never nil.
func (s *server) readUpload(w http.ResponseWriter, r *http.Request, boundary string, fields ...string) (f form, release func(), err error) {
	w.(*response).upload = true
	limit := s.MaxAvatarBytes + maxFormBytes
	if release, err = s.reserveUpload(r, limit); err != nil {
		return f, release, err
	}
	f, err = readMultipart(http.MaxBytesReader(w, r.Body, limit), boundary, s.MaxAvatarBytes, r.ContentLength, fields...)
	w.(*response).upload = err != nil || f.image != nil
	return f, release, err
}

// upload answers POST /upload: an image for the user with this id or email.
func (s *server) upload(w http.ResponseWriter, r *http.Request) error {
	mediaType, params, err := contentType(r)
	if err != nil {
		return err
	}
	if mediaType != "multipart/form-data" {
		return unsupported("Content-Type must be multipart/form-data, not %q", abbreviate(mediaType))
	}
	f, release, err := s.readUpload(w, r, params["boundary"], "user_id", "email")
	defer release()
	if err != nil {
		return err
	}
	id, err := uploadTarget(f)
	if err != nil {
		return err
	}
	u, err := s.storeAvatar(r.Context(), id, f.image)
	if err != nil {
		return err
	}
	return s.writeUser(w, http.StatusOK, u)
}

// uploadTarget finds out whose image a form brings.
func uploadTarget(f form) (id string, err error) {
	// An input of a form that is left empty is sent all the same.
	userIDText, email := strings.TrimSpace(f.fields["user_id"]), strings.TrimSpace(f.fields["email"])
	byID, byEmail := userIDText != "", email != ""
	var errs []fieldError
	switch {
	case byID && byEmail:
		errs = append(errs, fieldError{"user_id", "send user_id or email, not both"})
	case byID:
		raw, ok := parseID(userIDText)
		if !ok {
			errs = append(errs, fieldError{"user_id", fmt.Sprintf("must be the id of a user, not %q", abbreviate(userIDText))})
		}
		id = formatID(raw)
	case byEmail:
		email, fault := cleanEmail(email)
		if fault != nil {
			errs = append(errs, *fault)
		}
		id = userID(email)
	default:
		errs = append(errs, fieldError{"user_id", "send user_id or email"})
	}
	if f.image == nil {
		errs = append(errs, fieldError{"avatar", "send the image in this field"})
	}
	if len(errs) > 0 {
		return "", badFields(errs...)
	}
	return id, nil
}

// putAvatar answers PUT /users/{id}/avatar: the image as the raw body.
func (s *server) putAvatar(w http.ResponseWriter, r *http.Request) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	w.(*response).upload = true
	if err := checkEncoding(r); err != nil {
		return err
	}
	if r.Header.Get("Expect") != "" {
		// The client waits to be told that its body is wanted (RFC 9110, section
		// 10.1.1). From all others it is on its way, and storeAvatar looks.
		if _, err := s.users.Get(r.Context(), id); err != nil {
			return err
		}
	}
	release, err := s.reserveUpload(r, s.MaxAvatarBytes)
	defer release()
	if err != nil {
		return err
	}
	image, err := readAll(w, r, s.MaxAvatarBytes)
	if err != nil {
		return err
	}
	u, err := s.storeAvatar(r.Context(), id, image)
	if err != nil {
		return err
	}
	return s.writeUser(w, http.StatusOK, u)
}

// createWithAvatar stores a new user together with the image: the user becomes
// visible with it or not at all.
func (s *server) createWithAvatar(r *http.Request, u *User, image []byte) error {
	ctx := r.Context()
	a, err := s.putImage(ctx, u.ID, image)
	if err != nil {
		return err
	}
	u.Avatar = &a
	err = s.users.Create(ctx, *u)
	if errors.Is(err, ErrExists) {
		s.discard(ctx, u.ID, a.Key)
	}
	// After any other failure the write may still take effect: the image stays,
	// at worst for nothing, since a pointer without an image would be worse.
	return err
}

// storeAvatar gives the user with this id another image and returns the user as
// it is then. A reader sees the old image or the new one, whole.
func (s *server) storeAvatar(ctx context.Context, id string, image []byte) (User, error) {
	// The user is looked up while the image is being stored: nearly always there is
	// one, and if not, the image is removed again.
	var u User
	found := make(chan error, 1)
	go func() {
		var err error
		u, err = s.users.Get(ctx, id)
		found <- err
	}()
	a, err := s.putImage(ctx, id, image)
	if missing := <-found; missing != nil {
		if err == nil {
			s.discard(ctx, id, a.Key)
		}
		err = missing
	}
	if err != nil {
		return User{}, err
	}
	at := now()
	before, err := s.users.SetAvatar(ctx, id, &a, at)
	if errors.Is(err, ErrNotFound) { // deleted meanwhile
		s.discard(ctx, id, a.Key)
	}
	if err != nil {
		return User{}, err // as in createWithAvatar, the image stays
	}
	// Nothing points to the old image any more, and nothing ever will again.
	old := before.Avatar
	if old == nil {
		old = u.Avatar // a store that is unsure what was there before says nil
	}
	if old != nil {
		s.discardLater(ctx, id, old.Key)
	}
	before.Avatar, before.UpdatedAt = &a, at
	return before, nil
}

// putImage cleans an image and stores it under a new key.
func (s *server) putImage(ctx context.Context, id string, image []byte) (Avatar, error) {
	image, mediaType, err := cleanImage(image)
	if err != nil {
		return Avatar{}, err
	}
	a := newAvatar(mediaType, image)
	if err := s.avatars.Put(ctx, id, a, image); err != nil {
		s.discard(ctx, id, a.Key) // it may be stored although the answer was lost
		return Avatar{}, err
	}
	return a, nil
}

// discard removes an image that nothing points to. What fails here costs a
// little storage until the user is deleted, and nothing else.
func (s *server) discard(ctx context.Context, id, key string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), discardTimeout)
	defer cancel()
	if err := s.avatars.Delete(ctx, id, key); err != nil {
		s.log.Warn("image left behind", "user", id, "key", key, "error", err)
	}
}

// discardLater removes an image that was replaced, while the request is answered:
// S3 may take as long for it as for storing the new one. Where maxDiscards are
// under way, the request waits for its own, and so takes no more on.
func (s *server) discardLater(ctx context.Context, id, key string) {
	if !s.discards.TryAcquire(1) {
		s.discard(ctx, id, key)
		return
	}
	go func() {
		defer s.discards.Release(1)
		s.discard(ctx, id, key)
	}()
}

// deleteAvatar answers DELETE /users/{id}/avatar.
func (s *server) deleteAvatar(w http.ResponseWriter, r *http.Request) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	u, err := s.users.Get(r.Context(), id)
	if err != nil {
		return err
	}
	if u.Avatar == nil {
		return notFound("the user has no avatar")
	}
	before, err := s.users.SetAvatar(r.Context(), id, nil, now())
	if err != nil {
		return err
	}
	if before.Avatar == nil { // unknown, or another request was faster
		before.Avatar = u.Avatar
	}
	s.discard(r.Context(), id, before.Avatar.Key)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// getAvatar answers GET and HEAD /users/{id}/avatar.
func (s *server) getAvatar(w http.ResponseWriter, r *http.Request) error {
	id, err := pathID(r)
	if err != nil {
		return err
	}
	if a, ok := s.known.get(id); ok && r.Method == http.MethodGet && r.URL.Query().Get("v") == a.version() &&
		r.Header.Get("If-Match") == "" && r.Header.Get("If-None-Match") == "" {
		if err := s.serveAvatar(w, r, id, a); !errors.Is(err, ErrNotFound) {
			return err
		}
	}
	var key string
	for {
		u, err := s.users.Get(r.Context(), id)
		if err != nil {
			return err
		}
		if u.Avatar == nil {
			return notFound("the user has no avatar")
		}
		if u.Avatar.Key == key {
			s.log.Error("image missing", "user", id, "key", key)
			return notFound("the image is missing")
		}
		key = u.Avatar.Key
		s.known.put(id, *u.Avatar)
		// An image that is gone was replaced between the two reads: the pointer
		// says by which one.
		if err = s.serveAvatar(w, r, id, *u.Avatar); !errors.Is(err, ErrNotFound) {
			return err
		}
	}
}

// knownAvatars remembers where images were found. An address with ?v= names its
// content: as long as the image with that hash is where it was, nobody needs to
// be asked whether it is the user's present one. An image that was deleted is
// gone before that request is answered, one that was replaced soon after.
//
// What is known is forgotten after a minute: an image that could not be removed,
// because S3 did not answer just then, is out of reach from then on.
type knownAvatars struct {
	mu   sync.Mutex
	byID map[string]knownAvatar
}

type knownAvatar struct {
	Avatar
	found time.Time
}

const (
	maxKnownAvatars = 10_000 // some 3 MB
	knownFor        = time.Minute
)

func (k *knownAvatars) get(id string) (Avatar, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	a, ok := k.byID[id]
	return a.Avatar, ok && time.Since(a.found) < knownFor
}

func (k *knownAvatars) put(id string, a Avatar) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.byID == nil {
		k.byID = map[string]knownAvatar{}
	}
	for other := range k.byID { // whichever comes first
		if len(k.byID) < maxKnownAvatars {
			break
		}
		delete(k.byID, other)
	}
	k.byID[id] = knownAvatar{a, time.Now()}
}

// serveAvatar answers with an image, or the part of it that was asked for. What
// the pointer knows needs no call to the image store: HEAD, 304, 412, 416.
func (s *server) serveAvatar(w http.ResponseWriter, r *http.Request, id string, a Avatar) error {
	etag := `"` + a.SHA256 + `"`
	open := s.tokens == nil || s.AvatarsPublic
	h := w.Header()
	h.Set("ETag", etag)
	h.Set("Accept-Ranges", "bytes")
	h.Set("Cache-Control", cacheControl(r, a, open))
	// Nothing in an image may run, and no page may take it for a document.
	h.Set("Content-Security-Policy", "default-src 'none'; sandbox; frame-ancestors 'none'")
	if open {
		h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	}

	// RFC 9110, section 13.2.2: the order in which preconditions count.
	if m := r.Header.Values("If-Match"); len(m) > 0 && !etagIn(m, etag) {
		p := newProblem(http.StatusPreconditionFailed, "precondition-failed", "The precondition does not hold", "the image is another one than If-Match says")
		p.header.Set("ETag", etag)
		return p
	}
	if m := r.Header.Values("If-None-Match"); len(m) > 0 && etagIn(m, etag, "W/"+etag) {
		w.WriteHeader(http.StatusNotModified)
		return nil
	}
	status, start, length := http.StatusOK, int64(0), a.Size
	// Range is for GET alone: HEAD ignores it (RFC 9110, section 14.2).
	if ifRange := r.Header.Get("If-Range"); r.Method == http.MethodGet && (ifRange == "" || ifRange == etag) {
		if status, start, length = parseRange(r.Header.Get("Range"), a.Size); status == http.StatusRequestedRangeNotSatisfiable {
			p := newProblem(http.StatusRequestedRangeNotSatisfiable, "range-not-satisfiable", "The range is outside the image", "the image has %d bytes", a.Size)
			p.header.Set("Content-Range", fmt.Sprintf("bytes */%d", a.Size))
			return p
		}
	}
	var image io.ReadCloser = io.NopCloser(bytes.NewReader(nil))
	if r.Method != http.MethodHead {
		var err error
		if image, err = s.avatars.Get(r.Context(), id, a, start, length); err != nil {
			return err
		}
	}
	defer image.Close()
	h.Set("Content-Type", a.Type)
	h.Set("Content-Length", strconv.FormatInt(length, 10))
	h.Set("Content-Disposition", `inline; filename="avatar.`+strings.TrimPrefix(a.Type, "image/")+`"`)
	if status == http.StatusPartialContent {
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, start+length-1, a.Size))
	}
	w.WriteHeader(status)
	if r.Method == http.MethodHead {
		return nil
	}
	buffer := copyBuffers.Get().(*[copyBufferSize]byte)
	defer copyBuffers.Put(buffer)
	// Without what io.Copy would find beside Read and Write, so that it uses the buffer.
	n, err := io.CopyBuffer(struct{ io.Writer }{w}, io.LimitReader(image, length), buffer[:])
	if err == nil && n < length {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("image broke off: %w", err)
	}
	return nil
}

// Images pass through buffers larger than io.Copy's 32 KiB: fewer system calls
// for the same bytes.
const copyBufferSize = 128 << 10

var copyBuffers = sync.Pool{New: func() any { return new([copyBufferSize]byte) }}

// cacheControl lets an image be kept for ever under the URL that names its
// content, and asks for revalidation under any other.
func cacheControl(r *http.Request, a Avatar, open bool) string {
	switch {
	case r.URL.Query().Get("v") != a.version():
		return "no-cache"
	case open:
		return "public, max-age=31536000, immutable"
	}
	return "private, max-age=31536000, immutable"
}

// etagIn reports whether an If-Match or If-None-Match field is "*" or lists one of
// the entity tags. The service gives out strong ones only, but for If-None-Match
// the weak form of one counts as well (RFC 9110, section 8.8.3.2).
func etagIn(fields []string, etags ...string) bool {
	for _, field := range fields {
		for tag := range strings.SplitSeq(field, ",") {
			if tag = strings.TrimSpace(tag); tag == "*" || slices.Contains(etags, tag) {
				return true
			}
		}
	}
	return false
}

// parseRange reads a Range field (RFC 9110, section 14.2) for size bytes, and says
// which bytes answer it with which status: 206, or 416 if none is in the range. A
// field that it does not understand, and one that asks for several ranges, is
// answered with everything, as the RFC allows.
func parseRange(field string, size int64) (status int, start, length int64) {
	spec, found := strings.CutPrefix(field, "bytes=")
	firstText, lastText, dash := strings.Cut(strings.TrimSpace(spec), "-")
	first, hasFirst := digits(firstText)
	last, hasLast := digits(lastText)
	switch {
	case !found || !dash,
		!hasFirst && firstText != "",
		!hasLast && lastText != "",
		!hasFirst && !hasLast,
		hasFirst && hasLast && last < first:
		return http.StatusOK, 0, size
	case !hasFirst: // the last so many bytes
		first, last = size-min(last, size), size-1
	case !hasLast || last >= size:
		last = size - 1
	}
	if first >= size {
		return http.StatusRequestedRangeNotSatisfiable, 0, 0
	}
	return http.StatusPartialContent, first, last - first + 1
}

// digits reads a number without a sign. One too large for an int64 is as good as
// the largest that is not.
func digits(s string) (n int64, ok bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil || errors.Is(err, strconv.ErrRange) // n is then the largest
}
