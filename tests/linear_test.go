package tests

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"roster/internal/testkit"
)

const (
	linearClients = 8
	linearUsers   = 3 // at a time: few, so that clients meet
	linearRound   = 3 * time.Second
	linearEnough  = 200 // operations: fewer tell nothing
)

// A linearOp is one operation on one user. Deleting a user is two: first its image
// goes, then the user.
type linearOp struct {
	kind  string // create, get, rename, upload, first, image, thumbnail, remove, delete
	user  string // email
	name  string // for create and rename
	image int    // for create, upload and first; 0: none
}

// Statuses beside those of HTTP.
const (
	unknown = 0 // the operation may take effect at any later time, or never
	partly  = 1 // it took effect while the request ran, or had none
)

// A linearResult is what a client saw.
type linearResult struct {
	status   int
	name     string
	hasImage bool
	image    int // -1: none of those that were sent
}

// A linearUser is the state of one user.
type linearUser struct {
	exists bool
	name   string
	image  int // 0: none
}

// linearModel says which results are right: those of one user that operations change
// one after the other. An operation without a result takes effect at any time after
// its start, or never, which is the same as after everything else.
var linearModel = porcupine.Model{
	Partition: func(history []porcupine.Operation) (parts [][]porcupine.Operation) {
		index := map[string]int{}
		for _, op := range history {
			user := op.Input.(linearOp).user
			if _, ok := index[user]; !ok {
				index[user] = len(parts)
				parts = append(parts, nil)
			}
			parts[index[user]] = append(parts[index[user]], op)
		}
		return parts
	},
	Init: func() any { return linearUser{} },
	Step: func(state, input, output any) (bool, any) {
		u, in, out := state.(linearUser), input.(linearOp), output.(linearResult)
		next := u
		applies := u.exists // if it takes effect
		var right map[int]bool
		switch in.kind {
		case "create":
			next = linearUser{true, in.name, in.image}
			applies = !u.exists
			right = map[int]bool{201: applies, 409: u.exists}
		case "get":
			right = map[int]bool{200: u.exists && out.name == u.name && out.hasImage == (u.image != 0), 404: !u.exists}
		case "rename":
			next.name = in.name
			right = map[int]bool{200: u.exists, 404: !u.exists}
		case "upload":
			next.image = in.image
			right = map[int]bool{200: u.exists, 404: !u.exists}
		case "first":
			next.image = in.image
			applies = u.exists && u.image == 0
			right = map[int]bool{200: applies, 404: !u.exists, 412: u.image != 0}
		case "image":
			right = map[int]bool{200: u.exists && u.image == out.image, 404: !u.exists || u.image == 0}
		case "thumbnail":
			right = map[int]bool{200: u.image != 0 && similar(u.image, out.image), 404: !u.exists || u.image == 0}
		case "remove":
			next.image = 0
			right = map[int]bool{204: u.exists, 404: !u.exists || u.image == 0, partly: true}
		case "delete":
			next = linearUser{}
			right = map[int]bool{204: true, 404: !u.exists}
		}
		done := out.status < 300
		if done && applies {
			return out.status == unknown || right[out.status], next
		}
		return out.status == unknown || right[out.status], u
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v %+v", input, output) },
}

// Images are of one color each, which the thumbnail has, too.
func linearColor(id int) color.NRGBA {
	x := uint32(id) * 2654435761 // spreads consecutive ids
	return color.NRGBA{uint8(x >> 24), uint8(x >> 16), uint8(x >> 8), 255}
}

func linearImage(id int) []byte {
	img := image.NewNRGBA(image.Rect(0, 0, 16, 16))
	for i := range 16 * 16 {
		img.SetNRGBA(i%16, i/16, linearColor(id))
	}
	return testkit.PNG(img)
}

// similar compares an image's color with that of a thumbnail, which JPEG changed a
// little. The thumbnail's is packed as 0xRRGGBB.
func similar(id, packed int) bool {
	c := linearColor(id)
	for _, d := range []int{int(c.R) - packed>>16&255, int(c.G) - packed>>8&255, int(c.B) - packed&255} {
		if d < -6 || d > 6 {
			return false
		}
	}
	return true
}

func packedColor(data []byte) int {
	img, _, err := image.Decode(bytes.NewReader(data))
	if err != nil {
		return -1
	}
	b := img.Bounds()
	c := color.NRGBAModel.Convert(img.At((b.Min.X+b.Max.X)/2, (b.Min.Y+b.Max.Y)/2)).(color.NRGBA)
	return int(c.R)<<16 | int(c.G)<<8 | int(c.B)
}

// A recorder records what clients do and see.
type recorder struct {
	url   string
	start time.Time

	mu      sync.Mutex
	images  map[int]int // id of an image by its packed color
	history []porcupine.Operation
}

func newRecorder(url string) *recorder {
	return &recorder{url: url, start: time.Now(), images: map[int]int{}}
}

func (r *recorder) newImage() (id int, data []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	id = len(r.images) + 1
	data = linearImage(id)
	r.images[packedColor(data)] = id
	return id, data
}

func (r *recorder) imageID(data []byte) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if id := r.images[packedColor(data)]; id != 0 {
		return id
	}
	return -1
}

func (r *recorder) add(client int, op linearOp, out linearResult, call int64) {
	end := time.Since(r.start).Nanoseconds()
	if out.status == unknown || out.status >= 500 {
		switch op.kind {
		case "get", "image", "thumbnail":
			return // tells nothing
		}
		out, end = linearResult{}, math.MaxInt64
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	// A client whose operation has no result goes on as another one.
	if end == math.MaxInt64 {
		client = linearClients + len(r.history)
	}
	r.history = append(r.history, porcupine.Operation{ClientId: client, Input: op, Output: out, Call: call,
		Return: end})
}

// send sends a request. It returns false if the request never reached the service.
func (r *recorder) send(method, path string, header map[string]string, body []byte) (status int, data []byte,
	sent bool) {
	req, _ := http.NewRequest(method, r.url+path, bytes.NewReader(body))
	for k, v := range header {
		req.Header.Set(k, v)
	}
	resp, err := testClient.Do(req)
	if err != nil {
		op, isNet := errors.AsType[*net.OpError](err)
		return 0, nil, !(isNet && op.Op == "dial")
	}
	defer resp.Body.Close()
	if data, err = io.ReadAll(resp.Body); err != nil {
		return 0, nil, true
	}
	return resp.StatusCode, data, true
}

// step does one random operation on one of the users.
func (r *recorder) step(client int, users []string) {
	user := users[rand.IntN(len(users))]
	path := "/users/" + userID(user)
	call := time.Since(r.start).Nanoseconds()
	record := func(op linearOp, out linearResult) {
		op.user = user
		r.add(client, op, out, call)
	}
	var u userJSON
	name := fmt.Sprintf("name %d", rand.IntN(1e9))
	switch n := rand.IntN(100); {
	case n < 14: // create
		op := linearOp{kind: "create", name: name}
		contentType, body := "application/x-www-form-urlencoded",
			[]byte(url.Values{"name": {name}, "email": {user}}.Encode())
		if n%2 == 0 {
			var data []byte
			op.image, data = r.newImage()
			contentType, body = testkit.Form(data, url.Values{"name": {name}, "email": {user}})
		}
		if status, _, sent := r.send("POST", "/user", map[string]string{"Content-Type": contentType}, body); sent {
			record(op, linearResult{status: status})
		}
	case n < 30: // get
		if status, data, sent := r.send("GET", path, nil, nil); sent {
			json.Unmarshal(data, &u)
			record(linearOp{kind: "get"}, linearResult{status: status, name: u.Name, hasImage: u.AvatarURL != ""})
		}
	case n < 38: // rename
		header := map[string]string{"Content-Type": "application/json"}
		if status, _, sent := r.send("PATCH", path, header, []byte(`{"name":"`+name+`"}`)); sent {
			record(linearOp{kind: "rename", name: name}, linearResult{status: status})
		}
	case n < 56: // upload, one in three only if there is no image yet
		op, header := linearOp{kind: "upload"}, map[string]string{}
		if n%3 == 0 {
			op.kind, header["If-None-Match"] = "first", "*"
		}
		var data []byte
		op.image, data = r.newImage()
		if status, _, sent := r.send("PUT", path+"/avatar", header, data); sent {
			record(op, linearResult{status: status})
		}
	case n < 72: // image, half of the time of a version that may be replaced by then
		target := path + "/avatar"
		if n%2 == 0 {
			_, data, _ := r.send("GET", path, nil, nil)
			if json.Unmarshal(data, &u); u.AvatarURL == "" {
				return
			}
			target = u.AvatarURL
			time.Sleep(time.Duration(rand.IntN(5)) * time.Millisecond)
			call = time.Since(r.start).Nanoseconds()
		}
		status, data, sent := r.send("GET", target, nil, nil)
		if !sent || status == http.StatusFound {
			return
		}
		out := linearResult{status: status}
		if status == http.StatusOK {
			out.image = r.imageID(data)
		} else if strings.Contains(string(data), "missing") {
			out = linearResult{status: http.StatusOK, image: -1} // a pointer without its image
		}
		record(linearOp{kind: "image"}, out)
	case n < 78: // thumbnail
		if status, data, sent := r.send("GET", path+"/thumbnail", nil, nil); sent && status != http.StatusFound {
			out := linearResult{status: status}
			if status == http.StatusOK {
				out.image = packedColor(data)
			}
			record(linearOp{kind: "thumbnail"}, out)
		}
	case n < 84: // remove the image
		if status, _, sent := r.send("DELETE", path+"/avatar", nil, nil); sent {
			record(linearOp{kind: "remove"}, linearResult{status: status})
		}
	case n < 94: // delete the user
		if status, _, sent := r.send("DELETE", path, nil, nil); sent {
			switch first := (linearOp{kind: "remove"}); {
			case status == http.StatusNoContent:
				record(first, linearResult{status: partly})
			case status != http.StatusNotFound:
				record(first, linearResult{status: unknown})
			}
			record(linearOp{kind: "delete"}, linearResult{status: status})
		}
	default: // list
		status, data, _ := r.send("GET", "/users", nil, nil)
		var list []userJSON
		if status != http.StatusOK || json.Unmarshal(data, &list) != nil {
			return
		}
		seen := map[string]userJSON{}
		for _, u := range list {
			seen[u.Email] = u
		}
		for _, user = range users {
			out := linearResult{status: http.StatusNotFound}
			if u, ok := seen[user]; ok {
				out = linearResult{status: http.StatusOK, name: u.Name, hasImage: u.AvatarURL != ""}
			}
			record(linearOp{kind: "get"}, out)
		}
	}
}

// run lets clients work for at least this time, and until the history is long enough. They work on
// the same users for a round. fault, if not nil, is called in the middle of each.
func (r *recorder) run(total time.Duration, fault func()) {
	for round := 0; time.Since(r.start) < total || len(r.history) < linearEnough; round++ {
		var users []string
		for i := range linearUsers {
			users = append(users, fmt.Sprintf("round%d-user%d@example.com", round, i))
		}
		end := time.Now().Add(linearRound)
		var running sync.WaitGroup
		if fault != nil {
			running.Go(func() {
				time.Sleep(linearRound / 2)
				fault()
			})
		}
		testkit.Together(linearClients, func(client int) {
			for time.Now().Before(end) {
				r.step(client, users)
				time.Sleep(time.Duration(rand.IntN(20)) * time.Millisecond)
			}
		})
		running.Wait()
	}
}

// check fails the test unless the history is linearizable.
func (r *recorder) check(t *testing.T) {
	t.Helper()
	t.Logf("%d operations", len(r.history))
	for _, part := range linearModel.Partition(r.history) {
		result, info := porcupine.CheckOperationsVerbose(linearModel, part, time.Minute)
		if result == porcupine.Ok {
			continue
		}
		path := fmt.Sprintf("%s/roster-linear-%d.html", os.TempDir(), time.Now().UnixNano())
		porcupine.VisualizePath(linearModel, info, path)
		t.Errorf("%s: %s of %d operations; see %s", part[0].Input.(linearOp).user, result, len(part), path)
		longest := []porcupine.Operation{}
		for _, partial := range info.PartialLinearizationsOperations()[0] {
			if len(partial) > len(longest) {
				longest = partial
			}
		}
		for _, op := range longest[max(0, len(longest)-15):] {
			t.Logf("in order: %d-%d %+v %+v", op.Call/1000, op.Return/1000, op.Input, op.Output)
		}
		for _, op := range part {
			if !slices.ContainsFunc(longest, func(o porcupine.Operation) bool {
				return o.Call == op.Call &&
					o.ClientId == op.ClientId
			}) && op.Return < longest[len(longest)-1].Return+1e8 {
				t.Logf("not: %d-%d %+v %+v", op.Call/1000, op.Return/1000, op.Input, op.Output)
			}
		}
	}
}

func TestLinearizable(t *testing.T) {
	t.Parallel()
	total := linearRound
	if *testkit.Long {
		total = 5 * linearRound
	}
	t.Run("embedded, killed", func(t *testing.T) {
		t.Parallel()
		addr := "127.0.0.1:" + freePort(t)
		dir := t.TempDir()
		p := start(t, "DATA_DIR="+dir, "LISTEN_ADDR="+addr)
		r := newRecorder(p.url)
		r.run(total, func() {
			p.kill()
			p = start(t, "DATA_DIR="+dir, "LISTEN_ADDR="+addr)
		})
		r.check(t)
	})
	t.Run("embedded", func(t *testing.T) {
		t.Parallel()
		r := newRecorder(start(t).url)
		r.run(total, nil)
		r.check(t)
	})
	t.Run("AWS, answers lost", func(t *testing.T) {
		t.Parallel()
		servers := realServers(t)
		lossy := func(target string) string {
			server := httptest.NewServer(&lossyProxy{target: testkit.Must(url.Parse(target))})
			t.Cleanup(server.Close)
			return server.URL
		}
		servers.dynamoURL, servers.s3URL = lossy(servers.dynamoURL), lossy(servers.s3URL)
		r := newRecorder(start(t, servers.env()...).url)
		r.run(total, nil)
		r.check(t)
	})
}

// A lossyProxy loses one in thirty answers to writes, or holds the request back until
// the client has given up.
type lossyProxy struct{ target *url.URL }

func (p *lossyProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	target := r.Header.Get("X-Amz-Target")
	reads := r.Method == http.MethodGet || r.Method == http.MethodHead || strings.HasSuffix(target, "GetItem") ||
		strings.HasSuffix(target, "Scan")
	fault := rand.IntN(90)
	if reads || fault > 2 {
		fault = -1
	}
	if fault == 2 {
		time.Sleep(3500 * time.Millisecond) // longer than the service waits
	}
	body, _ := io.ReadAll(r.Body)
	forward := r.Clone(context.WithoutCancel(r.Context()))
	forward.Body, forward.ContentLength, forward.TransferEncoding = io.NopCloser(bytes.NewReader(body)),
		int64(len(body)), nil
	proxy := &httputil.ReverseProxy{Rewrite: func(pr *httputil.ProxyRequest) {
		pr.SetURL(p.target)
		pr.Out.Host = pr.In.Host // which is signed
	}}
	answer := httptest.NewRecorder()
	proxy.ServeHTTP(answer, forward)
	switch fault {
	case 0:
		panic(http.ErrAbortHandler)
	case 1:
		http.Error(w, `{"__type":"InternalServerError"}`, http.StatusInternalServerError)
		return
	}
	for k, v := range answer.Header() {
		w.Header()[k] = v
	}
	w.WriteHeader(answer.Code)
	w.Write(answer.Body.Bytes())
}

// TestLinearModel plants the faults that TestLinearizable is there to find.
func TestLinearModel(t *testing.T) {
	at := int64(0)
	op := func(in linearOp, out linearResult) porcupine.Operation {
		in.user = "a@example.com"
		at += 2
		return porcupine.Operation{Input: in, Output: out, Call: at, Return: at + 1}
	}
	create := op(linearOp{kind: "create", name: "A", image: 1}, linearResult{status: 201})
	upload := op(linearOp{kind: "upload", image: 2}, linearResult{status: 200})
	rename := op(linearOp{kind: "rename", name: "B"}, linearResult{status: 200})
	for name, test := range map[string]struct {
		last porcupine.Operation
		ok   bool
	}{
		"good":          {op(linearOp{kind: "get"}, linearResult{status: 200, name: "B", hasImage: true}), true},
		"lost update":   {op(linearOp{kind: "get"}, linearResult{status: 200, name: "A", hasImage: true}), false},
		"stale read":    {op(linearOp{kind: "image"}, linearResult{status: 200, image: 1}), false},
		"missing image": {op(linearOp{kind: "image"}, linearResult{status: 200, image: -1}), false},
		"revived":       {op(linearOp{kind: "get"}, linearResult{status: 404}), false},
		"stale thumbnail": {op(linearOp{kind: "thumbnail"},
			linearResult{status: 200, image: packedColor(linearImage(1))}), false},
		"created twice": {op(linearOp{kind: "create", name: "C"}, linearResult{status: 201}), false},
		"first, second": {op(linearOp{kind: "first", image: 3}, linearResult{status: 200}), false},
	} {
		history := []porcupine.Operation{create, upload, rename, test.last}
		if ok := porcupine.CheckOperations(linearModel, history); ok != test.ok {
			t.Errorf("%s: linearizable is %v", name, ok)
		}
	}
}
