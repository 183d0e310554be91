package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Exported names are what the stores promise; all other names of this package are not exported.

// Errors of the stores. Any other error is the context's, or a fault of this program.
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

// newKey returns a random name of 130 bits: the key of an image or the ETag of a user.
func newKey() string { return strings.ToLower(rand.Text()) }

// A User is a stored user. Times are UTC in whole milliseconds.
type User struct {
	ID        string // UUID version 8, derived from the email; see userID
	Name      string
	Email     string
	Avatar    Avatar // zero without an image
	Removed   string // key of a removed image whose object may still exist
	ETag      string // random, new with every write
	CreatedAt time.Time
	UpdatedAt time.Time
}

// An Avatar points to a stored image.
type Avatar struct {
	Key  string // random, used for one upload; the version in the image's URL
	Type string // media type, by content
	Size int64  // bytes
}

// A Change is a change of one kind: exactly one field beside At is set.
type Change struct {
	At           time.Time // the new UpdatedAt
	Name         string    // the new name
	Avatar       Avatar    // the new image, which also replaces a removed one
	RemoveAvatar bool      // move the key of the image, if any, to Removed
	Forget       string    // clear Removed if it is this key: the object is deleted
}

// apply changes the user. It returns false if there is nothing to change.
func (change Change) apply(u *User, etag string) bool {
	switch {
	case change.Name != "":
		u.Name = change.Name
	case change.Avatar.Key != "":
		u.Avatar, u.Removed = change.Avatar, ""
	case change.RemoveAvatar && u.Avatar.Key != "":
		u.Avatar, u.Removed = Avatar{}, u.Avatar.Key
	case change.Forget != "" && u.Removed == change.Forget:
		u.Removed = ""
	default:
		return false
	}
	u.UpdatedAt, u.ETag = change.At, etag
	return true
}

// check returns an error for an invalid user, such as another program's item or a damaged record.
func (u User) check() error {
	foreign := len(u.ID) != 36 || u.ID[14] != '8' // cheaper than parseID for each user of a list
	incomplete := u.Name == "" || u.Email == "" || u.CreatedAt.IsZero() || u.UpdatedAt.IsZero()
	badImage := u.Avatar != Avatar{} && (u.Avatar.Key == "" || u.Avatar.Size < 1)
	if foreign || incomplete || badImage {
		return fmt.Errorf("the stored item %.40q is not a valid user", u.ID)
	}
	return nil
}

// Users stores users. Each change is one conditional write to one item, and takes effect at most
// once. After ErrUnavailable, it may have taken effect: see Lost answers in docs/architecture.md.
type Users interface {
	// Create stores a new user with all its fields, or returns ErrExists.
	Create(ctx context.Context, u User) error

	// Get returns a user, or ErrNotFound. The read is consistent.
	Get(ctx context.Context, id string) (User, error)

	// List sends all users, page by page, in a stable order. Changes of the last second or so may
	// be missing, as in any Scan. A page has everything that is stored: see User.check.
	List(ctx context.Context, send func(page []User) error) error

	// Page returns at most limit users behind the id after, in a stable order of its own, and the
	// id to continue after, "" at the end.
	Page(ctx context.Context, after string, limit int) (page []User, next string, err error)

	// Update makes a change of a user who meets the condition. It returns the user before and after
	// the change, or ErrNotFound. With ErrPrecondition, and if there is nothing to change, both are
	// the current user. If a lost answer hid the user before the change, it is the zero User.
	Update(ctx context.Context, id string, change Change, c Condition) (before, after User, err error)

	// Delete deletes the user that Get returned, but not one created since under the same id. It
	// returns the last user, or ErrNotFound, even if a lost answer hid that it deleted the user.
	Delete(ctx context.Context, u User, c Condition) (User, error)
}

// Avatars stores images under avatars/{id}/{key}. Nothing is ever overwritten.
// The thumbnail of an image, if any, is stored beside it, under thumbnailKey(key).
type Avatars interface {
	// Put stores data durably and completely. After an error, the object may still exist, whole.
	Put(ctx context.Context, id, key, mediaType string, data []byte) error

	// Get returns an image from offset to its end, or ErrNotFound. The caller closes
	// the reader. A reader that returns io.EOF has returned all of it.
	Get(ctx context.Context, id, key string, offset int64) (io.ReadCloser, error)

	// Delete deletes an image and its thumbnail, existing or not.
	Delete(ctx context.Context, id, key string) error

	// DeleteStale deletes everything of a user last modified before the given time. A younger
	// object may belong to an upload in flight, which deletes it itself if the user is gone.
	DeleteStale(ctx context.Context, id string, before time.Time) error
}

// readObject reads an object to its end, into one buffer if its size is known.
func readObject(ctx context.Context, avatars Avatars, id, key string, size int64) ([]byte, error) {
	body, err := avatars.Get(ctx, id, key, 0)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	data := bytes.NewBuffer(make([]byte, 0, size+bytes.MinRead))
	_, err = data.ReadFrom(body)
	return data.Bytes(), err
}

// avatarKey returns the name of the object of an image.
func avatarKey(id, key string) string { return "avatars/" + id + "/" + key }

// thumbnailKey returns the key of the thumbnail of the image with this key.
func thumbnailKey(key string) string { return key + ".256" }
