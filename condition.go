package main

import (
	"cmp"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
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

// readTags returns the entity tags of a field (RFC 9110, section 8.8.3), nil if it is missing.
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

// readRange returns the first byte and the end of the bytes that a GET wants, and whether these are
// a Range. One that is not valid, or not for this tag, is ignored (RFC 9110, sections 13.1.5 and
// 14.2). One without a byte of the content ends where it begins.
func readRange(r *http.Request, tag string, size int64) (first, end int64, partial bool) {
	m := byteRange.FindStringSubmatch(strings.Join(r.Header.Values("Range"), ","))
	otherTag := cmp.Or(r.Header.Get("If-Range"), tag) != tag
	if m == nil || r.Method != http.MethodGet || m[1]+m[2] == "" || otherTag {
		return 0, size, false
	}
	first, _ = strconv.ParseInt(m[1], 10, 64) // the largest int64 if it is larger
	last, _ := strconv.ParseInt(cmp.Or(m[2], "9999999999999999999"), 10, 64)
	if m[1] == "" { // the last bytes
		first, last = max(size-last, 0), size
	}
	if last < first {
		return 0, size, false
	}
	return min(first, size), min(last, size-1) + 1, true
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
		w.Header().Del("Content-Encoding")
		w.WriteHeader(http.StatusNotModified)
		return false, nil
	}
	return true, nil
}
