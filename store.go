package main

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"iter"
	"strings"
	"time"
)

// Errors of the stores, for errors.Is. Any other error is a fault of this
// program.
var (
	ErrNotFound     = errors.New("not found")
	ErrExists       = errors.New("already exists")
	ErrPrecondition = errors.New("precondition failed")
	ErrUnavailable  = errors.New("backend unavailable") // retry later
)

// timeFormat is RFC 3339 with milliseconds, in the API and in DynamoDB.
const timeFormat = "2006-01-02T15:04:05.000Z07:00"

// now returns the time in the precision that is stored.
func now() time.Time { return time.Now().UTC().Truncate(time.Millisecond) }

// newKey returns a random name of 130 bits that is never used twice: the key of
// an image or the token of a write.
func newKey() string { return strings.ToLower(rand.Text()) }

// A User is a stored user. Times are UTC in whole milliseconds.
type User struct {
	ID        string // UUID version 8, derived from the email; see userID
	Name      string
	Email     string
	Avatar    *Avatar // nil without an image
	Removed   string  // key of a removed image whose object may still exist
	Write     string  // random, new with every write; the ETag of the user
	CreatedAt time.Time
	UpdatedAt time.Time
}

// An Avatar points to a stored image.
type Avatar struct {
	Key  string // random, used for one upload; the version in the image's URL
	Type string // media type, by content
	Size int64  // bytes
}

// A Condition restricts a write to a user in a known state. If the user differs,
// the write returns ErrPrecondition. The zero Condition matches every user.
type Condition struct {
	Write    string // the user's last write
	Avatar   string // the key of its image, or "*" for any image
	NoAvatar bool   // without an image
}

// holds reports whether the user meets the condition.
func (c Condition) holds(u User) bool {
	switch {
	case c.Write != "" && c.Write != u.Write,
		c.Avatar != "" && u.Avatar == nil,
		c.Avatar != "" && c.Avatar != "*" && c.Avatar != u.Avatar.Key,
		c.NoAvatar && u.Avatar != nil:
		return false
	}
	return true
}

// imageKey returns the key of the user's image, current or removed, if any.
func (u User) imageKey() string {
	if u.Avatar != nil {
		return u.Avatar.Key
	}
	return u.Removed
}

// Users stores users. Each change is one conditional write to one item, and each
// takes effect at most once: if the answer of a write is lost, the store looks
// whether the write happened, and returns ErrUnavailable if it cannot tell.
type Users interface {
	// Create stores a new user with all its fields, or returns ErrExists.
	Create(ctx context.Context, u User) error

	// Get returns a user, or ErrNotFound. The read is consistent.
	Get(ctx context.Context, id string) (User, error)

	// List yields at most limit users (0: all) in the store's own, stable order,
	// from the first one behind the id after. A user that is created or deleted
	// meanwhile may be missing; every other user is yielded once. On DynamoDB, a
	// user created or changed within the last second or so may be missing or old:
	// Scan is eventually consistent. An error is yielded last.
	List(ctx context.Context, after string, limit int) iter.Seq2[User, error]

	// Rename sets the name and returns the changed user, or ErrNotFound.
	Rename(ctx context.Context, id, name string, at time.Time, c Condition) (User, error)

	// SetAvatar sets the pointer to the image. It returns the changed user and
	// the key of the previous image, if any, or ErrNotFound. The key is "" if a
	// lost answer hid it.
	SetAvatar(ctx context.Context, id string, a Avatar, at time.Time, c Condition) (u User, previous string, err error)

	// RemoveAvatar moves the pointer's key to Removed and returns the changed
	// user, or ErrNotFound. A user without an image is returned as it is,
	// whatever the condition.
	RemoveAvatar(ctx context.Context, id string, at time.Time, c Condition) (User, error)

	// ForgetRemoved clears Removed if it still is key: the object is deleted. A
	// missing user is no error.
	ForgetRemoved(ctx context.Context, id, key string) error

	// Delete deletes the user that Get returned, but not one created since under
	// the same id. It returns the user as it was at last, its ID alone if a lost
	// answer hid the rest, or ErrNotFound.
	Delete(ctx context.Context, u User, c Condition) (User, error)

	// Ready makes one harmless call.
	Ready(ctx context.Context) error
}

// Avatars stores images under avatars/{id}/{key}. Nothing is ever overwritten.
// Beside an image may be its thumbnail, under thumbnailKey of the key.
type Avatars interface {
	// Put stores data durably and completely, or not at all.
	Put(ctx context.Context, id, key, mediaType string, data []byte) error

	// Get returns length bytes from offset (length -1: all that follow), or
	// ErrNotFound. The caller closes the reader. A reader that returns io.EOF
	// has returned all of it.
	Get(ctx context.Context, id, key string, offset, length int64) (io.ReadCloser, error)

	// Delete deletes an image and its thumbnail, existing or not.
	Delete(ctx context.Context, id, key string) error

	// DeleteStale deletes everything of the user id last modified before the
	// given time. A younger object may belong to an upload in flight, which
	// deletes it itself if the user is gone.
	DeleteStale(ctx context.Context, id string, before time.Time) error

	// Ready makes one harmless call.
	Ready(ctx context.Context) error
}

// thumbnailKey returns the key of the thumbnail of the image with this key.
func thumbnailKey(key string) string { return key + ".256" }
