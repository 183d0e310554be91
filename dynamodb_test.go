package main

import (
	"context"
	"strconv"
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
