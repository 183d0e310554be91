package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// dynamoUsers stores users in a DynamoDB table with the key id. An item holds
// id, name, email, created_at, updated_at, the map avatar if there is one
// (key, sha256, type, size), and write, which tells one creation from another.
type dynamoUsers struct {
	client *dynamodb.Client
	scans  aws.HTTPClient // waits longer for an answer
	once   aws.RetryerV2  // for what must not be applied twice
	table  string
	log    *slog.Logger
}

var _ Users = (*dynamoUsers)(nil)

func (d *dynamoUsers) Create(ctx context.Context, u User) error {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	write := rand.Text()
	item := map[string]types.AttributeValue{
		"id":         text(u.ID),
		"name":       text(u.Name),
		"email":      text(u.Email),
		"created_at": text(formatTime(u.CreatedAt)),
		"updated_at": text(formatTime(u.UpdatedAt)),
		"write":      text(write),
	}
	if u.Avatar != nil {
		item["avatar"] = avatarValue(*u.Avatar)
	}
	_, err := d.client.PutItem(call, &dynamodb.PutItemInput{
		TableName:                           &d.table,
		Item:                                item,
		ConditionExpression:                 aws.String("attribute_not_exists(id)"),
		ReturnValuesOnConditionCheckFailure: types.ReturnValuesOnConditionCheckFailureAllOld,
	})
	var exists *types.ConditionalCheckFailedException
	if errors.As(err, &exists) {
		// The SDK's second attempt finds what the first one wrote when only the
		// answer was lost.
		if textOf(exists.Item["write"]) == write {
			return nil
		}
		return ErrExists
	}
	if err != nil {
		return d.failed(ctx, "PutItem", err)
	}
	return nil
}

func (d *dynamoUsers) Get(ctx context.Context, id string) (User, error) {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	out, err := d.client.GetItem(call, &dynamodb.GetItemInput{
		TableName:      &d.table,
		Key:            keyOf(id),
		ConsistentRead: aws.Bool(true),
	})
	if err != nil {
		return User{}, d.failed(ctx, "GetItem", err)
	}
	if len(out.Item) == 0 {
		return User{}, ErrNotFound
	}
	return userOf(out.Item)
}

func (d *dynamoUsers) List(ctx context.Context, after string, limit int) iter.Seq2[User, error] {
	return func(yield func(User, error) bool) {
		pages, cancel := context.WithCancel(ctx)
		var start map[string]types.AttributeValue
		if after != "" {
			start = keyOf(after)
		}
		next := d.scan(pages, start, limit)
		// Leaves no call behind, wherever the loop ends.
		defer func() {
			cancel()
			if next != nil {
				<-next
			}
		}()
		for next != nil {
			page := <-next
			next = nil
			if page.err != nil {
				yield(User{}, d.failed(ctx, "Scan", page.err))
				return
			}
			items := page.out.Items
			if limit > 0 {
				items = items[:min(limit, len(items))]
				limit -= len(items)
				if limit == 0 {
					page.out.LastEvaluatedKey = nil
				}
			}
			// The next page is on its way while this one is written.
			if len(page.out.LastEvaluatedKey) > 0 {
				next = d.scan(pages, page.out.LastEvaluatedKey, limit)
			}
			for _, item := range items {
				u, err := userOf(item)
				if !yield(u, err) || err != nil {
					return
				}
			}
		}
	}
}

type scanPage struct {
	out *dynamodb.ScanOutput
	err error
}

// scan begins to read one page, of limit items or of DynamoDB's 1 MB if it is 0.
func (d *dynamoUsers) scan(ctx context.Context, start map[string]types.AttributeValue, limit int) <-chan scanPage {
	in := &dynamodb.ScanInput{TableName: &d.table, ExclusiveStartKey: start}
	if limit > 0 {
		in.Limit = aws.Int32(int32(limit)) // #nosec G115 -- a page has a thousand users at most
	}
	done := make(chan scanPage, 1)
	go func() {
		call, cancel := context.WithTimeout(ctx, scanTimeout)
		defer cancel()
		out, err := d.client.Scan(call, in, func(o *dynamodb.Options) { o.HTTPClient = d.scans })
		done <- scanPage{out, err}
	}()
	return done
}

func (d *dynamoUsers) Rename(ctx context.Context, id, name string, at time.Time) (User, error) {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	out, err := d.client.UpdateItem(call, &dynamodb.UpdateItemInput{
		TableName:           &d.table,
		Key:                 keyOf(id),
		ConditionExpression: aws.String("attribute_exists(id)"),
		UpdateExpression:    aws.String("SET #name = :name, updated_at = :at"),
		// "name" is one of DynamoDB's reserved words.
		ExpressionAttributeNames: map[string]string{"#name": "name"},
		ExpressionAttributeValues: map[string]types.AttributeValue{
			":name": text(name),
			":at":   text(formatTime(at)),
		},
		ReturnValues: types.ReturnValueAllNew,
	})
	if conditionFailed(err) {
		return User{}, ErrNotFound
	}
	if err != nil {
		return User{}, d.failed(ctx, "UpdateItem", err)
	}
	return userOf(out.Attributes)
}

func (d *dynamoUsers) SetAvatar(ctx context.Context, id string, a *Avatar, at time.Time) (User, error) {
	// Half of the time is for looking what became of an attempt without answer.
	call, cancel := context.WithTimeout(ctx, callTimeout/2)
	defer cancel()
	in := &dynamodb.UpdateItemInput{
		TableName:                 &d.table,
		Key:                       keyOf(id),
		ConditionExpression:       aws.String("attribute_exists(id)"),
		UpdateExpression:          aws.String("SET updated_at = :at REMOVE avatar"),
		ExpressionAttributeValues: map[string]types.AttributeValue{":at": text(formatTime(at))},
		ReturnValues:              types.ReturnValueAllOld,
	}
	if a != nil {
		in.UpdateExpression = aws.String("SET updated_at = :at, avatar = :avatar")
		in.ExpressionAttributeValues[":avatar"] = avatarValue(*a)
	}
	out, err := d.client.UpdateItem(call, in, func(o *dynamodb.Options) { o.Retryer = d.once })
	if err == nil {
		return userOf(out.Attributes)
	}
	if conditionFailed(err) {
		return User{}, ErrNotFound
	}
	if ctx.Err() != nil || notApplied(err) {
		return User{}, d.failed(ctx, "UpdateItem", err)
	}

	look, cancel := context.WithTimeout(ctx, callTimeout/2)
	defer cancel()
	u, lookErr := d.Get(look, id)
	switch {
	case lookErr != nil:
	case a == nil && u.Avatar == nil,
		a != nil && u.Avatar != nil && u.Avatar.Key == a.Key:
		u.Avatar = nil // what it was before is no longer to be known
		return u, nil
	}
	return User{}, d.failed(ctx, "UpdateItem", err)
}

func (d *dynamoUsers) Delete(ctx context.Context, id string) (User, error) {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	out, err := d.client.DeleteItem(call, &dynamodb.DeleteItemInput{
		TableName:    &d.table,
		Key:          keyOf(id),
		ReturnValues: types.ReturnValueAllOld,
	})
	if err != nil {
		return User{}, d.failed(ctx, "DeleteItem", err)
	}
	if len(out.Attributes) > 0 {
		return userOf(out.Attributes)
	}
	// An earlier attempt may have removed the item and lost the answer that says
	// what it was.
	if attempts, ok := retry.GetAttemptResults(out.ResultMetadata); ok {
		for _, attempt := range attempts.Results {
			if attempt.Err != nil && !notApplied(attempt.Err) {
				return User{ID: id}, nil
			}
		}
	}
	return User{}, ErrNotFound
}

// Ready reads an item that cannot exist: an id is never a word.
func (d *dynamoUsers) Ready(ctx context.Context) error {
	_, err := d.Get(ctx, "ready")
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// failed says what an error means, and names the table: it may be the one thing
// that is wrong.
func (d *dynamoUsers) failed(ctx context.Context, operation string, err error) error {
	return awsError(ctx, d.log, "DynamoDB "+operation+" on table "+d.table, err)
}

func conditionFailed(err error) bool {
	var failed *types.ConditionalCheckFailedException
	return errors.As(err, &failed)
}

func keyOf(id string) map[string]types.AttributeValue {
	return map[string]types.AttributeValue{"id": text(id)}
}

func text(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }

func textOf(v types.AttributeValue) string {
	if s, ok := v.(*types.AttributeValueMemberS); ok {
		return s.Value
	}
	return ""
}

func formatTime(t time.Time) string { return t.UTC().Format(timeFormat) }

func avatarValue(a Avatar) types.AttributeValue {
	return &types.AttributeValueMemberM{Value: map[string]types.AttributeValue{
		"key":    text(a.Key),
		"sha256": text(a.SHA256),
		"type":   text(a.Type),
		"size":   &types.AttributeValueMemberN{Value: strconv.FormatInt(a.Size, 10)},
	}}
}

// userOf reads an item by hand: a listing reads very many, and reflection would
// cost it more than all the rest.
func userOf(item map[string]types.AttributeValue) (User, error) {
	u := User{
		ID:    textOf(item["id"]),
		Name:  textOf(item["name"]),
		Email: textOf(item["email"]),
	}
	var err error
	if u.CreatedAt, err = time.Parse(time.RFC3339, textOf(item["created_at"])); err != nil {
		return User{}, fmt.Errorf("user %q in DynamoDB: created_at: %w", u.ID, err)
	}
	if u.UpdatedAt, err = time.Parse(time.RFC3339, textOf(item["updated_at"])); err != nil {
		return User{}, fmt.Errorf("user %q in DynamoDB: updated_at: %w", u.ID, err)
	}
	if u.Name == "" || u.Email == "" {
		return User{}, fmt.Errorf("user %q in DynamoDB: no name or no email", u.ID)
	}
	if v, ok := item["avatar"].(*types.AttributeValueMemberM); ok {
		u.Avatar = &Avatar{
			Key:    textOf(v.Value["key"]),
			SHA256: textOf(v.Value["sha256"]),
			Type:   textOf(v.Value["type"]),
		}
		size, _ := v.Value["size"].(*types.AttributeValueMemberN)
		if size == nil || u.Avatar.Key == "" {
			return User{}, fmt.Errorf("user %q in DynamoDB: avatar without key or size", u.ID)
		}
		if u.Avatar.Size, err = strconv.ParseInt(size.Value, 10, 64); err != nil {
			return User{}, fmt.Errorf("user %q in DynamoDB: avatar size: %w", u.ID, err)
		}
	}
	return u, nil
}
