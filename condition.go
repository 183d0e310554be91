package main

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// maxTags is a limit of If-Match and If-None-Match. DynamoDB compares with at most 100 values.
const maxTags = 50

// tags are the entity tags of If-Match or If-None-Match, without quotes.
type tags struct {
	any  bool // *
	list []string
}

// contain reports whether a resource's tag is one of these. Without a tag, it does not exist.
func (set *tags) contain(tag string) bool {
	return set != nil && tag != "" && (set.any || slices.Contains(set.list, tag))
}

// A Condition on a user or an image (RFC 9110, section 13.1). The zero Condition always holds.
type Condition struct {
	OfAvatar  bool  // the tag is the key of the user's image, otherwise the user's ETag
	Match     *tags // the tag is one of these; nil: no restriction
	NoneMatch *tags // the tag is none of these; nil: no restriction
}

// holds reports whether the user meets the condition.
func (cond Condition) holds(u User) bool {
	tag := u.ETag
	if cond.OfAvatar {
		tag = u.Avatar.Key
	}
	return (cond.Match == nil || cond.Match.contain(tag)) && !cond.NoneMatch.contain(tag)
}

// readCondition returns what If-Match and If-None-Match require of a resource.
func readCondition(r *http.Request) (Condition, error) {
	match, err := readTags(r, "If-Match")
	noneMatch, noneErr := readTags(r, "If-None-Match")
	return Condition{Match: match, NoneMatch: noneMatch}, cmp.Or(err, noneErr)
}

var (
	tagList = regexp.MustCompile(`^(\s*((W/)?"[^"]*")?\s*(,|$))*$`)
	oneTag  = regexp.MustCompile(`(W/)?"([^"]*)"`)
)

// readTags returns the entity tags of a header field (RFC 9110, section 8.8.3), nil if it is missing.
func readTags(r *http.Request, field string) (*tags, error) {
	lines := r.Header.Values(field)
	if lines == nil {
		return nil, nil
	}
	text := strings.TrimSpace(strings.Join(lines, ","))
	t := &tags{any: text == "*"}
	if !t.any && !tagList.MatchString(text) {
		return nil, badRequest(`%s must be * or entity tags in double quotes, such as "4hpbm7i2xqzv", not %.40q`,
			field, text)
	}
	found := oneTag.FindAllStringSubmatch(text, -1)
	if len(found) > maxTags {
		return nil, badRequest("%s may have at most %d entity tags; it has %d", field, maxTags, len(found))
	}
	for _, m := range found {
		// In If-Match, a weak tag matches nothing (section 8.8.3.2).
		if weak := m[1] != ""; !weak || field == "If-None-Match" {
			t.list = append(t.list, m[2])
		}
	}
	return t, nil
}

// byteRange matches a Range of one range of bytes (RFC 9110, section 14.1.2).
var byteRange = regexp.MustCompile(`^(?i:bytes)=([0-9]*)-([0-9]*)$`)

// readRange returns the Range of a GET as http.ServeContent takes it, or "" for one that is ignored
// (RFC 9110, section 14.2). Without a byte of the content it begins at the size: the answer is 416.
func readRange(r *http.Request, size int64) string {
	m := byteRange.FindStringSubmatch(strings.Join(r.Header.Values("Range"), ","))
	if m == nil || r.Method != http.MethodGet || m[1]+m[2] == "" {
		return ""
	}
	first, _ := strconv.ParseInt(m[1], 10, 64) // the largest int64 if it is larger
	last, _ := strconv.ParseInt(cmp.Or(m[2], "9999999999999999999"), 10, 64)
	if m[1] == "" { // the last bytes
		first, last = max(size-last, 0), size
	}
	if last < first {
		return ""
	}
	return fmt.Sprintf("bytes=%d-%d", first, last)
}

// serveContent answers a GET or HEAD with content whose Content-Type is set or follows from its
// name. It honours preconditions and one range.
func (w *response) serveContent(r *http.Request, name, tag string, content io.ReadSeeker) error {
	if holds, err := w.answerCondition(tag); !holds {
		return err
	}
	size, err := content.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	w.Header().Set("ETag", strconv.Quote(tag))
	r.Header.Del("If-Match") // answered
	r.Header.Del("If-None-Match")
	r.Header.Set("Range", readRange(r, size))
	http.ServeContent(w, r, name, time.Time{}, content)
	return nil
}

// answerCondition evaluates the condition of a GET of a resource with this tag. Unless it holds, it
// sets the status 304 and returns false, or returns ErrPrecondition.
func (w *response) answerCondition(tag string) (holds bool, err error) {
	c := w.condition
	switch {
	case c.Match != nil && !c.Match.contain(tag):
		return false, ErrPrecondition
	case c.NoneMatch.contain(tag):
		w.Header().Set("ETag", strconv.Quote(tag))
		w.Header().Del("Content-Type") // of a body
		w.Header().Del("Content-Encoding")
		w.WriteHeader(http.StatusNotModified)
		return false, nil
	}
	return true, nil
}
