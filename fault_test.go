package main

import (
	"context"
	"errors"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"roster/internal/fakeaws"
)

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
		faults []fakeaws.Fault
		do     func(Users) error
		want   error
		asked  int // how many attempts the store makes
		holds  int // items afterwards
	}{
		{"Create, throttled twice", "PutItem",
			[]fakeaws.Fault{{Status: 400, Code: "ThrottlingException"}, {Status: 400, Code: "ProvisionedThroughputExceededException"}},
			func(s Users) error { return s.Create(ctx, u) }, nil, 3, 1},
		{"Create, 500 once", "PutItem", []fakeaws.Fault{{Status: 500, Code: "InternalServerError"}},
			func(s Users) error { return s.Create(ctx, u) }, nil, 2, 1},
		{"Create, applied but the answer lost", "PutItem", []fakeaws.Fault{{Applied: true, Drop: true}},
			func(s Users) error { return s.Create(ctx, u) }, nil, 2, 1},
		{"Create, applied but the answer a 500, twice", "PutItem", []fakeaws.Fault{{Applied: true, Status: 500, Code: "InternalServerError"}, {Applied: true, Status: 503, Code: "ServiceUnavailable"}},
			func(s Users) error { return s.Create(ctx, u) }, nil, 3, 1},
		{"Create, applied but the answer cut", "PutItem", []fakeaws.Fault{{Cut: true}},
			func(s Users) error { return s.Create(ctx, u) }, nil, 2, 1},
		{"Create, throttled for ever", "PutItem",
			[]fakeaws.Fault{{Status: 400, Code: "ThrottlingException"}, {Status: 400, Code: "ThrottlingException"}, {Status: 400, Code: "ThrottlingException"}, {Status: 400, Code: "ThrottlingException"}},
			func(s Users) error { return s.Create(ctx, u) }, ErrUnavailable, 4, 0},
		{"Get, cut in the middle of the body", "GetItem", []fakeaws.Fault{{}, {Cut: true}},
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
		{"Get, damaged", "GetItem", []fakeaws.Fault{{Corrupt: true}, {Corrupt: true}},
			func(s Users) error {
				if err := s.Create(ctx, u); err != nil {
					return err
				}
				_, err := s.Get(ctx, u.ID)
				return err
			}, nil, 3, 1},
		{"Get, expired token", "GetItem", []fakeaws.Fault{{Status: 400, Code: "ExpiredTokenException"}},
			func(s Users) error { _, err := s.Get(ctx, u.ID); return err }, ErrUnavailable, 1, 0},
		{"Get, missing table", "GetItem", []fakeaws.Fault{{Status: 400, Code: "ResourceNotFoundException"}},
			func(s Users) error { _, err := s.Get(ctx, u.ID); return err }, ErrUnavailable, 1, 0},
		{"Rename, applied but the answer lost", "UpdateItem", []fakeaws.Fault{{Applied: true, Drop: true}},
			func(s Users) error {
				if err := s.Create(ctx, u); err != nil {
					return err
				}
				_, err := s.Rename(ctx, u.ID, "Anna B.", at)
				return err
			}, nil, 2, 1},
		{"SetAvatar, throttled", "UpdateItem", []fakeaws.Fault{{Status: 400, Code: "ThrottlingException"}},
			func(s Users) error {
				if err := s.Create(ctx, u); err != nil {
					return err
				}
				_, err := s.SetAvatar(ctx, u.ID, &avatar, at)
				return err
			}, nil, 2, 1},
		{"SetAvatar, applied but the answer lost", "UpdateItem", []fakeaws.Fault{{Applied: true, Drop: true}},
			func(s Users) error {
				if err := s.Create(ctx, u); err != nil {
					return err
				}
				_, err := s.SetAvatar(ctx, u.ID, &avatar, at)
				return err
			}, nil, 1, 1},
		{"SetAvatar, not applied and no answer", "UpdateItem", []fakeaws.Fault{{Drop: true}},
			func(s Users) error {
				if err := s.Create(ctx, u); err != nil {
					return err
				}
				_, err := s.SetAvatar(ctx, u.ID, &avatar, at)
				return err
			}, ErrUnavailable, 1, 1},
		{"SetAvatar, 500", "UpdateItem", []fakeaws.Fault{{Status: 500, Code: "InternalServerError"}},
			func(s Users) error {
				if err := s.Create(ctx, u); err != nil {
					return err
				}
				_, err := s.SetAvatar(ctx, u.ID, &avatar, at)
				return err
			}, ErrUnavailable, 1, 1},
		{"SetAvatar of nobody, answer lost", "UpdateItem", []fakeaws.Fault{{Applied: true, Drop: true}},
			func(s Users) error { _, err := s.SetAvatar(ctx, u.ID, &avatar, at); return err }, ErrUnavailable, 1, 0},
		{"Delete, applied but the answer lost", "DeleteItem", []fakeaws.Fault{{Applied: true, Drop: true}},
			func(s Users) error {
				if err := s.Create(ctx, u); err != nil {
					return err
				}
				_, err := s.Delete(ctx, u.ID)
				return err
			}, nil, 2, 0},
		{"Delete of nobody, throttled", "DeleteItem", []fakeaws.Fault{{Status: 400, Code: "ThrottlingException"}},
			func(s Users) error { _, err := s.Delete(ctx, u.ID); return err }, ErrNotFound, 2, 0},
		{"List, 500 on the second page", "Scan", []fakeaws.Fault{{}, {Status: 500, Code: "InternalServerError"}},
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
			dynamo := fakeaws.NewDynamoDB(t)
			dynamo.Page(10)
			users, _ := openTestAWS(t, dynamo.URL, "http://127.0.0.1:1")
			dynamo.Next(tt.op, tt.faults...)
			wantError(t, tt.do(users), tt.want)
			if got := dynamo.Calls(tt.op); got != tt.asked {
				t.Errorf("%s was asked for %d times, want %d", tt.op, got, tt.asked)
			}
			if got := dynamo.Count(); got != tt.holds {
				t.Errorf("the table holds %d items, want %d", got, tt.holds)
			}
		})
	}
}

// TestClockSkew has a server whose clock is half an hour off.
func TestClockSkew(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dynamo, bucket := fakeaws.NewDynamoDB(t), fakeaws.NewS3(t)
	dynamo.Skew, bucket.Skew = 30*time.Minute, -30*time.Minute
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
	hanging := fakeaws.NewDynamoDB(t)
	hanging.Always("*", fakeaws.Fault{Hang: true})
	hangingS3 := fakeaws.NewS3(t)
	hangingS3.Always("*", fakeaws.Fault{Hang: true})
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
