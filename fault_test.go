package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"
)

// A fault is what a fake does wrong with one request.
type fault struct {
	status  int           // answer this status and code, without doing anything
	code    string        //
	applied bool          // do what was asked before failing
	delay   time.Duration // before anything is answered
	hang    bool          // no answer until the client gives up
	drop    bool          // close the connection without an answer
	cut     bool          // close the connection in the middle of the body
	stall   bool          // send nothing more from the middle of the body on
	corrupt bool          // flip a bit of the body, past its checksum
	gate    chan struct{} // hold the request until this is closed
}

// faults holds what a fake is to do wrong, by operation, and counts what it was
// asked. The operation "*" stands for all.
type faults struct {
	mu     sync.Mutex
	queue  map[string][]fault
	always map[string]fault
	asked  map[string]int
	skew   time.Duration // the server's clock is ahead by this
}

// next lets the next calls of an operation fail, one after another; a zero fault
// is a call that succeeds.
func (f *faults) next(operation string, list ...fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.queue == nil {
		f.queue = map[string][]fault{}
	}
	f.queue[operation] = append(f.queue[operation], list...)
}

// from now on, all calls of an operation fail so.
func (f *faults) from(operation string, what fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.always == nil {
		f.always = map[string]fault{}
	}
	f.always[operation] = what
}

// clear ends all faults.
func (f *faults) clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queue, f.always = nil, nil
}

// calls returns how often an operation was asked for; "" stands for all.
func (f *faults) calls(operation string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked[operation]
}

func (f *faults) now() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Now().Add(f.skew)
}

func (f *faults) take(operation string) fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.asked == nil {
		f.asked = map[string]int{}
	}
	f.asked[operation]++
	f.asked[""]++ // all together
	for _, name := range []string{operation, "*"} {
		if list := f.queue[name]; len(list) > 0 {
			f.queue[name] = list[1:]
			return list[0]
		}
		if what, ok := f.always[name]; ok {
			return what
		}
	}
	return fault{}
}

// serve answers a request, wrongly if that is what is to be done. refuse writes
// an error in the protocol's own form.
func (f *faults) serve(w http.ResponseWriter, r *http.Request, operation string, do http.HandlerFunc, refuse func(w http.ResponseWriter, status int, code string)) {
	what := f.take(operation)
	if what.gate != nil {
		select {
		case <-what.gate:
		case <-r.Context().Done():
		}
	}
	if what.delay > 0 {
		select {
		case <-time.After(what.delay):
		case <-r.Context().Done():
		}
	}
	answer := httptest.NewRecorder()
	answer.Header().Set("Date", f.now().UTC().Format(http.TimeFormat))
	if what.applied || what.status == 0 && !what.hang && !what.drop {
		do(answer, r)
	}
	switch {
	case what.hang:
		// The server notices that a client has gone only once the body is read.
		bufferBody(r)
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	case what.drop:
		panic(http.ErrAbortHandler)
	case what.status != 0:
		answer = httptest.NewRecorder()
		answer.Header().Set("Date", f.now().UTC().Format(http.TimeFormat))
		refuse(answer, what.status, what.code)
	}
	body := answer.Body.Bytes()
	for k, v := range answer.Header() {
		w.Header()[k] = v
	}
	if r.Method != http.MethodHead {
		w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	}
	if what.corrupt && len(body) > 0 {
		body[len(body)/2] ^= 1
	}
	w.WriteHeader(answer.Code)
	if what.cut || what.stall {
		w.Write(body[:len(body)/2])
		w.(http.Flusher).Flush()
		if what.stall {
			<-r.Context().Done()
		}
		panic(http.ErrAbortHandler)
	}
	w.Write(body)
}

// TestFaultsOfDynamoDB cuts, slows and breaks each operation of the store on
// DynamoDB, and looks what the store says and what the table holds.
func TestFaultsOfDynamoDB(t *testing.T) {
	ctx := context.Background()
	u := testUser("anna@example.com")
	at := u.CreatedAt.Add(time.Minute)
	avatar := testAvatar([]byte("image"))

	for _, tt := range []struct {
		name   string
		op     string
		faults []fault
		do     func(Users) error
		want   error
		asked  int // how many attempts the store makes
		holds  int // items afterwards
	}{
		{"Create, throttled twice", "PutItem",
			[]fault{{status: 400, code: "ThrottlingException"}, {status: 400, code: "ProvisionedThroughputExceededException"}},
			func(s Users) error { return s.Create(ctx, u) }, nil, 3, 1},
		{"Create, 500 once", "PutItem", []fault{{status: 500, code: "InternalServerError"}},
			func(s Users) error { return s.Create(ctx, u) }, nil, 2, 1},
		{"Create, applied but the answer lost", "PutItem", []fault{{applied: true, drop: true}},
			func(s Users) error { return s.Create(ctx, u) }, nil, 2, 1},
		{"Create, applied but the answer a 500, twice", "PutItem", []fault{{applied: true, status: 500, code: "InternalServerError"}, {applied: true, status: 503, code: "ServiceUnavailable"}},
			func(s Users) error { return s.Create(ctx, u) }, nil, 3, 1},
		{"Create, applied but the answer cut", "PutItem", []fault{{cut: true}},
			func(s Users) error { return s.Create(ctx, u) }, nil, 2, 1},
		{"Create, throttled for ever", "PutItem",
			[]fault{{status: 400, code: "ThrottlingException"}, {status: 400, code: "ThrottlingException"}, {status: 400, code: "ThrottlingException"}, {status: 400, code: "ThrottlingException"}},
			func(s Users) error { return s.Create(ctx, u) }, ErrUnavailable, 4, 0},
		{"Get, cut in the middle of the body", "GetItem", []fault{{}, {cut: true}},
			func(s Users) error {
				if err := s.Create(ctx, u); err != nil {
					return err
				}
				if _, err := s.Get(ctx, u.ID); err != nil {
					return err
				}
				_, err := s.Get(ctx, u.ID)
				return err
			}, nil, 3, 1},
		{"Get, damaged", "GetItem", []fault{{corrupt: true}, {corrupt: true}},
			func(s Users) error {
				if err := s.Create(ctx, u); err != nil {
					return err
				}
				_, err := s.Get(ctx, u.ID)
				return err
			}, nil, 3, 1},
		{"Get, expired token", "GetItem", []fault{{status: 400, code: "ExpiredTokenException"}},
			func(s Users) error { _, err := s.Get(ctx, u.ID); return err }, ErrUnavailable, 1, 0},
		{"Get, missing table", "GetItem", []fault{{status: 400, code: "ResourceNotFoundException"}},
			func(s Users) error { _, err := s.Get(ctx, u.ID); return err }, ErrUnavailable, 1, 0},
		{"Rename, applied but the answer lost", "UpdateItem", []fault{{applied: true, drop: true}},
			func(s Users) error {
				if err := s.Create(ctx, u); err != nil {
					return err
				}
				_, err := s.Rename(ctx, u.ID, "Anna B.", at)
				return err
			}, nil, 2, 1},
		{"SetAvatar, throttled", "UpdateItem", []fault{{status: 400, code: "ThrottlingException"}},
			func(s Users) error {
				if err := s.Create(ctx, u); err != nil {
					return err
				}
				_, err := s.SetAvatar(ctx, u.ID, &avatar, at)
				return err
			}, nil, 2, 1},
		{"SetAvatar, applied but the answer lost", "UpdateItem", []fault{{applied: true, drop: true}},
			func(s Users) error {
				if err := s.Create(ctx, u); err != nil {
					return err
				}
				_, err := s.SetAvatar(ctx, u.ID, &avatar, at)
				return err
			}, nil, 1, 1},
		{"SetAvatar, not applied and no answer", "UpdateItem", []fault{{drop: true}},
			func(s Users) error {
				if err := s.Create(ctx, u); err != nil {
					return err
				}
				_, err := s.SetAvatar(ctx, u.ID, &avatar, at)
				return err
			}, ErrUnavailable, 1, 1},
		{"SetAvatar, 500", "UpdateItem", []fault{{status: 500, code: "InternalServerError"}},
			func(s Users) error {
				if err := s.Create(ctx, u); err != nil {
					return err
				}
				_, err := s.SetAvatar(ctx, u.ID, &avatar, at)
				return err
			}, ErrUnavailable, 1, 1},
		{"SetAvatar of nobody, answer lost", "UpdateItem", []fault{{applied: true, drop: true}},
			func(s Users) error { _, err := s.SetAvatar(ctx, u.ID, &avatar, at); return err }, ErrUnavailable, 1, 0},
		{"Delete, applied but the answer lost", "DeleteItem", []fault{{applied: true, drop: true}},
			func(s Users) error {
				if err := s.Create(ctx, u); err != nil {
					return err
				}
				_, err := s.Delete(ctx, u.ID)
				return err
			}, nil, 2, 0},
		{"Delete of nobody, throttled", "DeleteItem", []fault{{status: 400, code: "ThrottlingException"}},
			func(s Users) error { _, err := s.Delete(ctx, u.ID); return err }, ErrNotFound, 2, 0},
		{"List, 500 on the second page", "Scan", []fault{{}, {status: 500, code: "InternalServerError"}},
			func(s Users) error {
				for i := range 25 {
					if err := s.Create(ctx, testUser(strconv.Itoa(i)+"@example.com")); err != nil {
						return err
					}
				}
				_, err := listAll(ctx, s, "", 0)
				return err
			}, nil, 4, 25},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dynamo := newFakeDynamoDB(t)
			dynamo.page(10)
			users, _ := openTestAWS(t, dynamo.URL, "http://127.0.0.1:1")
			dynamo.next(tt.op, tt.faults...)
			wantError(t, tt.do(users), tt.want)
			if got := dynamo.calls(tt.op); got != tt.asked {
				t.Errorf("%s was asked for %d times, want %d", tt.op, got, tt.asked)
			}
			if got := dynamo.count(); got != tt.holds {
				t.Errorf("the table holds %d items, want %d", got, tt.holds)
			}
		})
	}
}

// TestClockSkew has a server whose clock is half an hour off.
func TestClockSkew(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dynamo, bucket := newFakeDynamoDB(t), newFakeS3(t)
	dynamo.skew, bucket.skew = 30*time.Minute, -30*time.Minute
	users, avatars := openTestAWS(t, dynamo.URL, bucket.URL)
	u := testUser("anna@example.com")
	image := []byte("image")
	u.Avatar = new(Avatar)
	*u.Avatar = testAvatar(image)
	wantError(t, avatars.Put(ctx, u.ID, *u.Avatar, image), nil)
	wantError(t, users.Create(ctx, u), nil)
	_, err := users.SetAvatar(ctx, u.ID, nil, u.CreatedAt)
	wantError(t, err, nil)
}

// TestUnreachable has servers that refuse, hang and do not route.
func TestUnreachable(t *testing.T) {
	if testing.Short() {
		t.Skip("takes as long as the stores wait")
	}
	hanging := newFakeDynamoDB(t)
	hanging.from("*", fault{hang: true})
	hangingS3 := newFakeS3(t)
	hangingS3.from("*", fault{hang: true})
	// A listener that accepts nothing: its backlog takes the connection.
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })

	var calls sync.WaitGroup
	for _, tt := range []struct{ name, dynamo, s3 string }{
		{"refused", "http://127.0.0.1:1", "http://127.0.0.1:1"},
		{"hanging", hanging.URL, hangingS3.URL},
		{"silent", "http://" + silent.Addr().String(), "http://" + silent.Addr().String()},
	} {
		users, avatars := openTestAWS(t, tt.dynamo, tt.s3)
		u := testUser("anna@example.com")
		a := testAvatar([]byte("image"))
		for name, do := range map[string]func(context.Context) error{
			"Create":    func(ctx context.Context) error { return users.Create(ctx, u) },
			"Get":       func(ctx context.Context) error { _, err := users.Get(ctx, u.ID); return err },
			"List":      func(ctx context.Context) error { _, err := listAll(ctx, users, "", 0); return err },
			"Rename":    func(ctx context.Context) error { _, err := users.Rename(ctx, u.ID, "A", u.CreatedAt); return err },
			"SetAvatar": func(ctx context.Context) error { _, err := users.SetAvatar(ctx, u.ID, &a, u.CreatedAt); return err },
			"Delete":    func(ctx context.Context) error { _, err := users.Delete(ctx, u.ID); return err },
			"Ready":     func(ctx context.Context) error { return users.Ready(ctx) },
			"avatar Get": func(ctx context.Context) error {
				_, err := avatars.Get(ctx, u.ID, a, 0, a.Size)
				return err
			},
			"avatar Delete":    func(ctx context.Context) error { return avatars.Delete(ctx, u.ID, a.Key) },
			"avatar DeleteAll": func(ctx context.Context) error { return avatars.DeleteAll(ctx, u.ID) },
			"avatar Ready":     func(ctx context.Context) error { return avatars.Ready(ctx) },
		} {
			calls.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				defer cancel()
				start := time.Now()
				if err := do(ctx); !errors.Is(err, ErrUnavailable) {
					t.Errorf("%s, %s: error %v, want %v", tt.name, name, err, ErrUnavailable)
				}
				limit := callTimeout
				if name == "List" {
					limit = scanTimeout
				}
				if d := time.Since(start); d > limit+time.Second {
					t.Errorf("%s, %s: took %s, more than %s", tt.name, name, d, limit)
				}
			})
		}
	}
	calls.Wait()
}
