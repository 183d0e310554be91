package main

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"
)

// Errors of the stores, told apart with errors.Is. Anything else that a store
// returns is a fault of the service itself.
var (
	ErrNotFound    = errors.New("not found")
	ErrExists      = errors.New("already exists")
	ErrUnavailable = errors.New("backend unavailable") // worth another try later
)

// A User as it is stored. Times are UTC in whole milliseconds.
type User struct {
	ID        string // UUID version 8, made from the email; see userID
	Name      string
	Email     string
	Avatar    *Avatar // nil until there is one
	CreatedAt time.Time
	UpdatedAt time.Time
}

// An Avatar points to one stored image and says enough about it to answer
// everything but its bytes without asking the image store.
type Avatar struct {
	Key    string // random, used for one upload only and never again
	SHA256 string // of the image, lower-case hex
	Type   string // media type, as found in the content
	Size   int64  // bytes
}

// Users stores users, each by one conditional write to one item.
type Users interface {
	// Create stores a new user, or returns ErrExists if the id is taken.
	Create(ctx context.Context, u User) error

	// Get returns a user, all finished writes included, or ErrNotFound.
	Get(ctx context.Context, id string) (User, error)

	// List yields users in the store's own, stable order, beginning after the id
	// after (at the first user if it is empty), at most limit of them (0: all).
	// A user present throughout is yielded once; one that comes or goes
	// meanwhile may be missed. A failure is yielded last, so a caller that sees
	// no error has seen the whole list.
	List(ctx context.Context, after string, limit int) iter.Seq2[User, error]

	// Rename changes the name and returns the user as it is now, or ErrNotFound.
	Rename(ctx context.Context, id, name string, at time.Time) (User, error)

	// SetAvatar points the user to another avatar, or to none with nil, and
	// returns the user as it was before, or ErrNotFound. It is applied at most
	// once: a store that cannot know whether it was applied returns
	// ErrUnavailable and does not try again, because a second try could point
	// back to an image that a later upload has already replaced and deleted.
	SetAvatar(ctx context.Context, id string, a *Avatar, at time.Time) (User, error)

	// Delete removes the user and returns it as it was, or ErrNotFound. Of a user
	// that an earlier attempt may have removed, whose answer was lost, it returns
	// the ID alone.
	Delete(ctx context.Context, id string) (User, error)

	// Ready makes one real, harmless call, and says what is wrong if it fails.
	Ready(ctx context.Context) error
}

// Avatars stores images, each under a key of its own: nothing is overwritten,
// so what a reader has begun to read stays what it was.
type Avatars interface {
	// Put stores an image whole, durably, or not at all.
	Put(ctx context.Context, id string, a Avatar, image []byte) error

	// Get returns length bytes of the image from offset on, or ErrNotFound. The
	// caller closes what it gets.
	Get(ctx context.Context, id string, a Avatar, offset, length int64) (io.ReadCloser, error)

	// Delete removes one image; that there is none is no error.
	Delete(ctx context.Context, id, key string) error

	// DeleteAll removes every image ever put for the user id, those that an
	// upload which broke off left behind included.
	DeleteAll(ctx context.Context, id string) error

	// Ready makes one real, harmless call, and says what is wrong if it fails.
	Ready(ctx context.Context) error
}
