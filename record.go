package main

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"strconv"
	"time"
)

// recordFormat is the first byte of a record. The first format was JSON, which begins with a brace.
const recordFormat = 1

// encodeRecord returns the record of a user in the embedded store, whose key is the id: recordFormat, then
// fields, each led by its length. A new field goes to the end. An obsolete field stays, empty.
func encodeRecord(u User) []byte {
	var a Avatar
	if u.Avatar != nil {
		a = *u.Avatar
	}
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	record := []byte{recordFormat}
	for _, field := range []string{
		u.Name, u.Email, u.ETag, number(u.CreatedAt.UnixMilli()), number(u.UpdatedAt.UnixMilli()),
		u.Removed, a.Key, a.Type, number(a.Size),
	} {
		record = binary.AppendUvarint(record, uint64(len(field)))
		record = append(record, field...)
	}
	return record
}

// decodeRecord returns the user of a record, or ErrNotFound for nil. The user of a damaged record is not valid.
func decodeRecord(id string, record []byte) (u User, err error) {
	switch {
	case record == nil:
		return User{}, ErrNotFound
	case len(record) > 0 && record[0] == recordFormat:
		u, err = decodeFields(record[1:])
	default:
		u, err = decodeJSON(record)
	}
	if err != nil {
		u = User{}
	}
	u.ID = id
	return u, nil
}

// decodeFields reads the fields of a record. It ignores unknown fields. Missing fields are empty.
func decodeFields(record []byte) (User, error) {
	var u User
	var a Avatar
	var created, updated, size string
	text := string(record) // one allocation for all fields
	at := 0
	for _, field := range []*string{
		&u.Name, &u.Email, &u.ETag, &created, &updated,
		&u.Removed, &a.Key, &a.Type, &size,
	} {
		if at == len(record) {
			break
		}
		length, n := binary.Uvarint(record[at:])
		start := at + n
		if n <= 0 || length > uint64(len(record)-start) {
			return User{}, errors.New("the record is damaged")
		}
		at = start + int(length)
		*field = text[start:at]
	}
	var errCreated, errUpdated, errSize error
	u.CreatedAt, errCreated = parseMilli(created)
	u.UpdatedAt, errUpdated = parseMilli(updated)
	if a.Key != "" {
		a.Size, errSize = strconv.ParseInt(size, 10, 64)
		u.Avatar = new(a)
	}
	return u, cmp.Or(errCreated, errUpdated, errSize)
}

// parseMilli parses Unix milliseconds.
func parseMilli(text string) (time.Time, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	return time.UnixMilli(n).UTC(), err
}

// decodeJSON reads a record of the first format. The next change of the user replaces it.
func decodeJSON(record []byte) (User, error) {
	var r struct {
		Name, Email          string
		Avatar               *Avatar
		Removed, Write       string // Write is the ETag
		CreatedAt, UpdatedAt int64  // Unix milliseconds
	}
	if err := json.Unmarshal(record, &r); err != nil {
		return User{}, err
	}
	return User{
		Name: r.Name, Email: r.Email, Avatar: r.Avatar, Removed: r.Removed, ETag: r.Write,
		CreatedAt: time.UnixMilli(r.CreatedAt).UTC(), UpdatedAt: time.UnixMilli(r.UpdatedAt).UTC(),
	}, nil
}
