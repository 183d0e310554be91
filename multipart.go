package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/textproto"
	"slices"
	"strings"
)

// A part is one part of multipart/form-data (RFC 7578).
type part struct {
	name, fileName string
	content        []byte
}

// splitParts splits a multipart body (RFC 2046, section 5.1.1) into at most maxParts parts. It does not copy
// their content. All lines end in CRLF, or all in LF alone, as some scripts send them.
func splitParts(body []byte, boundary string) (parts []part, err error) {
	delimiter := []byte("--" + boundary)
	preamble, rest, found := cutDelimiter(body, delimiter)
	if !found || len(preamble) > 0 && !bytes.HasSuffix(preamble, []byte("\n")) {
		return nil, badRequest("the body does not begin with the boundary of Content-Type")
	}
	lineEnd := []byte("\r\n")
	if bytes.HasPrefix(rest, []byte("\n")) {
		lineEnd = []byte("\n")
	}
	delimiter = slices.Concat(lineEnd, delimiter)
	for !bytes.HasPrefix(rest, []byte("--")) {
		if len(parts) == maxParts {
			return nil, badRequest("the form has more than %d parts", maxParts)
		}
		var raw []byte
		raw, rest, found = cutDelimiter(rest, delimiter)
		if !found {
			return nil, bodyError(io.ErrUnexpectedEOF)
		}
		p, err := parsePart(raw, lineEnd)
		if err != nil {
			return nil, badRequest("part %d of the form %v", len(parts)+1, err)
		}
		parts = append(parts, p)
	}
	return parts, nil
}

// cutDelimiter cuts body around the first delimiter that ends its line, except for padding, or that two hyphens
// follow, as they follow the last one. after begins with the end of the line or the hyphens.
func cutDelimiter(body, delimiter []byte) (before, after []byte, found bool) {
	end := 0
	for {
		i := bytes.Index(body[end:], delimiter)
		if i < 0 {
			return nil, nil, false
		}
		start := end + i
		end = start + len(delimiter)
		after := bytes.TrimLeft(body[end:], " \t")
		for _, next := range []string{"--", "\r\n", "\n"} {
			if bytes.HasPrefix(after, []byte(next)) {
				return body[:start], after, true
			}
		}
	}
}

// parsePart parses a part: a line end, the header, an empty line, the content.
func parsePart(raw, lineEnd []byte) (part, error) {
	headerEnd := bytes.Index(raw, slices.Concat(lineEnd, lineEnd)) + 2*len(lineEnd)
	if headerEnd < 2*len(lineEnd) || headerEnd > maxFormBytes {
		return part{}, fmt.Errorf("has no empty line within %d bytes, to end its header", maxFormBytes)
	}
	lines := bytes.NewReader(raw[len(lineEnd):headerEnd])
	header, err := textproto.NewReader(bufio.NewReader(lines)).ReadMIMEHeader()
	if err != nil {
		return part{}, fmt.Errorf("is malformed: %w", err)
	}
	switch encoding := header.Get("Content-Transfer-Encoding"); strings.ToLower(encoding) {
	case "", "7bit", "8bit", "binary":
	default: // RFC 7578, section 4.7
		return part{}, fmt.Errorf("has the Content-Transfer-Encoding %.40q; send it unencoded", encoding)
	}
	p := multipart.Part{Header: header}
	if p.FormName() == "" {
		return part{}, errors.New("has no readable name; send Content-Disposition: form-data; name=...")
	}
	return part{name: p.FormName(), fileName: p.FileName(), content: raw[headerEnd:]}, nil
}
