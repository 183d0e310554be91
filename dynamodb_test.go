package main

import (
	"context"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"roster/internal/testkit"
)

// TestFaultsOfDynamoDB lets each operation fail, and compares the error, the number of attempts and the
// items in the table.
func TestFaultsOfDynamoDB(t *testing.T) {
	ctx := context.Background()
	u := testUser("anna@example.com")
	at := u.CreatedAt.Add(time.Minute)
	avatar := testAvatar([]byte("image"))

	create := func(s Users) error { return s.Create(ctx, u) }
	get := func(s Users) error { _, err := s.Get(ctx, u.ID); return err }
	rename := func(s Users) error {
		_, _, err := s.Update(ctx, u.ID, Change{Name: "Anna B.", At: at}, Condition{})
		return err
	}
	setAvatar := func(s Users) error {
		_, _, err := s.Update(ctx, u.ID, Change{Avatar: avatar, At: at}, Condition{})
		return err
	}
	remove := func(s Users) error { _, err := s.Delete(ctx, u, Condition{}); return err }
	list := func(s Users) error {
		for i := range 25 {
			if err := s.Create(ctx, testUser(strconv.Itoa(i)+"@example.com")); err != nil {
				return err
			}
		}
		_, err := listAll(ctx, s)
		return err
	}

	throttled := testkit.Fault{Status: 400, Code: "ThrottlingException"}
	exceeded := testkit.Fault{Status: 400, Code: "ProvisionedThroughputExceededException"}
	failed := testkit.Fault{Status: 500, Code: "InternalServerError"}
	failedLate := testkit.Fault{Applied: true, Status: 500, Code: "InternalServerError"}
	lost, cut := testkit.Fault{Applied: true, Drop: true}, testkit.Fault{Cut: true}
	refused := func(code string) []testkit.Fault { return []testkit.Fault{{Status: 400, Code: code}} }
	faults := func(list ...testkit.Fault) []testkit.Fault { return list }
	for _, tt := range []struct {
		name   string
		exists bool // u, before
		op     string
		faults []testkit.Fault
		do     func(Users) error
		want   error
		calls  int // of op, with retries
		items  int // in the table afterwards
	}{
		{"create, throttled twice", false, "PutItem", faults(throttled, exceeded), create, nil, 3, 1},
		{"create, throttled always", false, "PutItem", slices.Repeat(faults(throttled), 4), create, ErrUnavailable, 4,
			0},
		{"create, 500 and not applied", false, "PutItem", faults(failed), create, ErrUnavailable, 1, 0},
		{"create, applied, answer lost", false, "PutItem", faults(lost), create, nil, 1, 1},
		{"create, applied, answer cut", false, "PutItem", faults(cut), create, nil, 1, 1},
		{"create, throttled, then applied with a 500", false, "PutItem", faults(throttled, failedLate), create, nil, 2,
			1},
		{"get, answer cut", true, "GetItem", faults(cut), get, nil, 2, 1},
		{"get, refused as malformed", false, "GetItem", refused("ValidationException"), get, ErrUnavailable, 1, 0},
		{"get, expired token", false, "GetItem", refused("ExpiredTokenException"), get, ErrUnavailable, 1, 0},
		{"get, missing table", false, "GetItem", refused("ResourceNotFoundException"), get, ErrUnavailable, 1, 0},
		{"rename, applied, answer lost", true, "UpdateItem", faults(lost), rename, nil, 1, 1},
		{"set avatar, throttled", true, "UpdateItem", faults(throttled), setAvatar, nil, 2, 1},
		{"set avatar, applied, answer lost", true, "UpdateItem", faults(lost), setAvatar, nil, 1, 1},
		{"set avatar, not applied, no answer", true, "UpdateItem", faults(testkit.Fault{Drop: true}), setAvatar,
			ErrUnavailable, 1, 1},
		{"set avatar, 500", true, "UpdateItem", faults(failed), setAvatar, ErrUnavailable, 1, 1},
		{"set avatar of a missing user, answer lost", false, "UpdateItem", faults(lost), setAvatar, ErrUnavailable, 1,
			0},
		{"delete, applied, answer lost", true, "DeleteItem", faults(lost), remove, ErrNotFound, 2, 0},
		{"delete of a missing user, throttled", false, "DeleteItem", faults(throttled), remove, ErrNotFound, 2, 0},
		{"list, 500 on the second page", false, "Scan", faults(testkit.Fault{}, failed), list, nil, 5, 25},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dynamo := testkit.NewDynamoDB(t)
			dynamo.Page(10)
			users, _ := openTestAWS(t, dynamo.URL, "http://127.0.0.1:1")
			if tt.exists {
				wantError(t, create(users), nil)
			}
			dynamo.Next(tt.op, tt.faults...)
			wantError(t, tt.do(users), tt.want)
			if got := dynamo.Calls(tt.op); got != tt.calls {
				t.Errorf("%d calls of %s, want %d", got, tt.op, tt.calls)
			}
			if got := dynamo.Count(); got != tt.items {
				t.Errorf("the table has %d items, want %d", got, tt.items)
			}
		})
	}
}

// TestLostAnswers loses the answer to a write, while another process writes.
// A write must take effect at most once, and must not undo what was acknowledged.
func TestLostAnswers(t *testing.T) {
	ctx := context.Background()
	at := time.Date(2026, time.March, 4, 5, 6, 7, 0, time.UTC)
	a, b, c := testAvatar([]byte("a")), testAvatar([]byte("b")), testAvatar([]byte("c"))
	u := testUser("anna@example.com")
	u.Avatar = a
	since := testUser(u.Email) // the same id, created later
	since.Name, since.CreatedAt, since.UpdatedAt = "Anna Since", at, at

	rename := func(users Users, name string) error {
		_, _, err := users.Update(ctx, u.ID, Change{Name: name, At: at}, Condition{})
		return err
	}
	setAvatar := func(users Users, a Avatar) error {
		_, _, err := users.Update(ctx, u.ID, Change{Avatar: a, At: at}, Condition{})
		return err
	}
	removeAvatar := func(users Users) error {
		_, _, err := users.Update(ctx, u.ID, Change{RemoveAvatar: true, At: at}, Condition{})
		return err
	}
	remove := func(users Users) error {
		_, err := users.Delete(ctx, u, Condition{})
		return err
	}
	recreate := func(users Users) error {
		if err := remove(users); err != nil {
			return err
		}
		return users.Create(ctx, since)
	}
	for _, tt := range []struct {
		name, op string
		exists   bool // u, before
		do       func(Users) error
		applied  bool              // the first attempt, before its answer is lost
		during   func(Users) error // before the client knows
		want     error
		after    func(Users) error // before the first attempt arrives late, if not applied
		holds    string            // the user's name and the image's key; "" for no user
	}{
		{name: "create", op: "PutItem", applied: true,
			do: func(s Users) error { return s.Create(ctx, u) }, holds: u.Name + a.Key},
		{name: "create, deleted meanwhile", op: "PutItem", applied: true,
			do: func(s Users) error { return s.Create(ctx, u) }, during: remove, want: ErrUnavailable},
		{name: "create, created again meanwhile", op: "PutItem", applied: true,
			do: func(s Users) error { return s.Create(ctx, u) }, during: recreate, want: ErrUnavailable,
			holds: since.Name},
		{name: "create, late", op: "PutItem",
			do: func(s Users) error { return s.Create(ctx, u) }, want: ErrUnavailable,
			after: func(s Users) error { return s.Create(ctx, since) }, holds: since.Name},

		{name: "rename", op: "UpdateItem", exists: true, applied: true,
			do: func(s Users) error { return rename(s, "Old") }, holds: "Old" + a.Key},
		{name: "rename, renamed meanwhile", op: "UpdateItem", exists: true, applied: true,
			do:     func(s Users) error { return rename(s, "Old") },
			during: func(s Users) error { return rename(s, "New") },
			want:   ErrUnavailable, holds: "New" + a.Key},
		{name: "rename, not applied, renamed meanwhile", op: "UpdateItem", exists: true,
			do:     func(s Users) error { return rename(s, "Old") },
			during: func(s Users) error { return rename(s, "New") },
			want:   ErrUnavailable, holds: "New" + a.Key},
		{name: "rename, deleted meanwhile", op: "UpdateItem", exists: true, applied: true,
			do: func(s Users) error { return rename(s, "Old") }, during: remove, want: ErrUnavailable},
		{name: "rename, created again meanwhile", op: "UpdateItem", exists: true, applied: true,
			do: func(s Users) error { return rename(s, "Old") }, during: recreate, want: ErrUnavailable,
			holds: since.Name},
		{name: "rename, late", op: "UpdateItem", exists: true,
			do: func(s Users) error { return rename(s, "Old") }, want: ErrUnavailable,
			after: func(s Users) error { return setAvatar(s, b) }, holds: "Old" + b.Key},

		{name: "set image", op: "UpdateItem", exists: true, applied: true,
			do: func(s Users) error { return setAvatar(s, b) }, holds: u.Name + b.Key},
		{name: "set image, renamed meanwhile", op: "UpdateItem", exists: true, applied: true,
			do: func(s Users) error { return setAvatar(s, b) }, during: func(s Users) error { return rename(s, "New") },
			want: ErrUnavailable, holds: "New" + b.Key},
		{name: "set image, replaced meanwhile", op: "UpdateItem", exists: true, applied: true,
			do: func(s Users) error { return setAvatar(s, b) }, during: func(s Users) error { return setAvatar(s, c) },
			want: ErrUnavailable, holds: u.Name + c.Key},
		{name: "set image, not applied", op: "UpdateItem", exists: true,
			do: func(s Users) error { return setAvatar(s, b) }, want: ErrUnavailable, after: remove},

		{name: "remove image", op: "UpdateItem", exists: true, applied: true, do: removeAvatar, holds: u.Name},
		{name: "remove image, set meanwhile", op: "UpdateItem", exists: true, applied: true,
			do: removeAvatar, during: func(s Users) error { return setAvatar(s, b) }, want: ErrUnavailable,
			holds: u.Name + b.Key},
		{name: "remove image, late", op: "UpdateItem", exists: true,
			do: removeAvatar, want: ErrUnavailable, after: func(s Users) error { return rename(s, "New") },
			holds: "New"},
		{name: "remove image, not applied, removed with the user", op: "UpdateItem", exists: true,
			do: removeAvatar, want: ErrUnavailable, after: recreate, holds: since.Name},

		{name: "delete", op: "DeleteItem", exists: true, applied: true, do: remove, want: ErrNotFound},
		{name: "delete, created again meanwhile", op: "DeleteItem", exists: true, applied: true,
			do: remove, during: func(s Users) error { return s.Create(ctx, since) }, want: ErrNotFound,
			holds: since.Name},
		{name: "delete, late", op: "DeleteItem", exists: true,
			do: remove, after: func(s Users) error { return s.Create(ctx, since) }, holds: since.Name},
		{name: "delete, renamed meanwhile", op: "DeleteItem", exists: true,
			do: func(s Users) error {
				_, err := s.Delete(ctx, u, Condition{Match: &tags{list: []string{u.ETag}}})
				return err
			},
			during: func(s Users) error { return rename(s, "New") }, want: ErrPrecondition, holds: "New" + a.Key},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dynamo := testkit.NewDynamoDB(t)
			users, _ := openTestAWS(t, dynamo.URL, "http://127.0.0.1:1")
			other, _ := openTestAWS(t, dynamo.URL, "http://127.0.0.1:1")
			if tt.exists {
				wantError(t, users.Create(ctx, u), nil)
			}
			var late func()
			dynamo.Next(tt.op, testkit.Fault{Lost: func(arrive func()) {
				if late = arrive; tt.applied {
					arrive()
				}
				if tt.during != nil {
					if err := tt.during(other); err != nil {
						t.Errorf("meanwhile: %v", err)
					}
				}
			}})
			wantError(t, tt.do(users), tt.want)
			if tt.after != nil {
				wantError(t, tt.after(other), nil)
				late()
			}
			got := ""
			list, err := listAll(ctx, users)
			wantError(t, err, nil)
			for _, u := range list {
				if got += u.Name; u.Avatar.Key != "" {
					got += u.Avatar.Key
				}
			}
			if got != tt.holds {
				t.Errorf("the table holds %q, want %q", got, tt.holds)
			}
		})
	}
}

// TestForeignTypes: a number in the place of the ETag matches no If-Match. created_at may be spelled differently.
func TestForeignTypes(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	dynamo := testkit.NewDynamoDB(t)
	users, _ := openTestAWS(t, dynamo.URL, "http://127.0.0.1:1")
	i := itemOf(testUser("ada@example.com"))
	i["write"] = &types.AttributeValueMemberN{Value: "5"}
	i["created_at"] = text("2026-01-02T03:04:05Z")
	_, err := users.client.PutItem(ctx, &dynamodb.PutItemInput{TableName: &users.table, Item: i})
	wantError(t, err, nil)
	u, err := users.Get(ctx, textOf(i["id"]))
	wantError(t, err, nil)

	five := Condition{Match: &tags{list: []string{u.ETag}}}
	_, _, err = users.Update(ctx, u.ID, Change{Name: "Ada King", At: u.CreatedAt}, five)
	wantError(t, err, ErrPrecondition)
	_, err = users.Delete(ctx, u, five)
	wantError(t, err, ErrPrecondition)
	_, err = users.Delete(ctx, u, Condition{})
	wantError(t, err, nil)
}
