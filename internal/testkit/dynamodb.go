package testkit

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// DynamoDB speaks DynamoDB's JSON protocol, as far as the service uses it,
// and refuses what DynamoDB refuses.
type DynamoDB struct {
	*Faults
	URL      string
	pageSize int // items; DynamoDB's own limit is 1 MB

	mu     sync.Mutex
	tables map[string]*dynamoTable
}

type dynamoTable struct {
	key   string
	items map[string]dynamoItem // by hash of the key, see keyOf
	order []string              // of Scan: the sorted keys of items; nil after a change
	stale map[string]dynamoItem // items before their last change: what a read may return that is not consistent
}

type dynamoItem map[string]dynamoValue

// A dynamoValue is {"S": "text"}, {"N": "1"}, {"M": {…}} and so on.
type dynamoValue map[string]json.RawMessage

func NewDynamoDB(t testing.TB) *DynamoDB {
	users := &dynamoTable{key: "id", items: map[string]dynamoItem{}, stale: map[string]dynamoItem{}}
	f := &DynamoDB{Faults: &Faults{}, pageSize: 1000, tables: map[string]*dynamoTable{Table: users}}
	f.URL = serve(t, f)
	return f
}

// Page sets the page size; a process that is up may be asking already.
func (f *DynamoDB) Page(size int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pageSize = size
}

// Count returns how many items the table holds.
func (f *DynamoDB) Count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.tables[Table].items)
}

// A dynamoRequest has the members of all the operations' inputs.
type dynamoRequest struct {
	TableName                           string
	Key, Item, ExclusiveStartKey        dynamoItem
	ConditionExpression                 *string
	UpdateExpression                    *string
	ExpressionAttributeNames            map[string]string
	ExpressionAttributeValues           map[string]dynamoValue
	ReturnValues                        string
	ReturnValuesOnConditionCheckFailure string
	ConsistentRead                      bool
	Limit, Segment, TotalSegments       *int
	KeySchema                           []struct{ AttributeName, KeyType string }
	AttributeDefinitions                []struct{ AttributeName, AttributeType string }
	BillingMode                         string
}

// A dynamoError is an answer with an error code.
type dynamoError struct {
	code string
	item dynamoItem
}

func (e *dynamoError) Error() string { return e.code }

var errValidation = &dynamoError{code: "ValidationException"}

func (f *DynamoDB) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	operation := strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "DynamoDB_20120810.")
	f.serve(w, r, operation, func(w http.ResponseWriter, r *http.Request) { f.do(w, r, operation) }, refuseDynamoDB)
}

func refuseDynamoDB(w http.ResponseWriter, status int, code string) {
	answerDynamoDB(w, status, map[string]any{
		"__type":  "com.amazonaws.dynamodb.v20120810#" + code,
		"message": "the fake says " + code,
	})
}

func answerDynamoDB(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	w.Header().Set("X-Amz-Crc32", strconv.FormatUint(uint64(crc32.ChecksumIEEE(body)), 10))
	w.WriteHeader(status)
	w.Write(body)
}

func (f *DynamoDB) do(w http.ResponseWriter, r *http.Request, operation string) {
	if code := checkAuthorization(r, f.now()); code != "" {
		refuseDynamoDB(w, http.StatusBadRequest, map[string]string{
			"skew": "InvalidSignatureException", "missing": "MissingAuthenticationTokenException",
		}[code])
		return
	}
	var in dynamoRequest
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		refuseDynamoDB(w, http.StatusBadRequest, "SerializationException")
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	out, err := f.operation(operation, in)
	if err != nil {
		body := map[string]any{"__type": "com.amazonaws.dynamodb.v20120810#" + err.code, "message": "the fake says " +
			err.code}
		if err.item != nil {
			body["Item"] = err.item
		}
		answerDynamoDB(w, http.StatusBadRequest, body)
		return
	}
	answerDynamoDB(w, http.StatusOK, out)
}

var tableNames = regexp.MustCompile(`^[a-zA-Z0-9_.-]{3,255}$`)

func (f *DynamoDB) operation(operation string, in dynamoRequest) (map[string]any, *dynamoError) {
	if !tableNames.MatchString(in.TableName) {
		return nil, errValidation
	}
	table := f.tables[in.TableName]
	if operation == "CreateTable" {
		switch {
		case len(in.KeySchema) != 1, len(in.AttributeDefinitions) != 1, in.BillingMode != "PAY_PER_REQUEST",
			in.KeySchema[0].AttributeName != in.AttributeDefinitions[0].AttributeName:
			return nil, errValidation
		case table != nil:
			return nil, &dynamoError{code: "ResourceInUseException"}
		}
		f.tables[in.TableName] = &dynamoTable{key: in.KeySchema[0].AttributeName, items: map[string]dynamoItem{},
			stale: map[string]dynamoItem{}}
		return map[string]any{"TableDescription": map[string]any{"TableName": in.TableName, "TableStatus": "CREATING"}},
			nil
	}

	names := &dynamoNames{in: in, usedNames: map[string]bool{}, usedValues: map[string]bool{}}
	condition, err := names.condition(in.ConditionExpression)
	if err != nil {
		return nil, err
	}
	update, err := names.update(in.UpdateExpression)
	if err != nil {
		return nil, err
	}
	if err := names.unused(); err != nil {
		return nil, err
	}
	if !slices.Contains(map[string][]string{
		"PutItem":    {"", "NONE", "ALL_OLD"},
		"DeleteItem": {"", "NONE", "ALL_OLD"},
		"UpdateItem": {"", "NONE", "ALL_OLD", "ALL_NEW", "UPDATED_OLD", "UPDATED_NEW"},
	}[operation], in.ReturnValues) && in.ReturnValues != "" {
		return nil, errValidation
	}
	if in.Limit != nil && *in.Limit < 1 {
		return nil, errValidation
	}
	if table == nil {
		return nil, &dynamoError{code: "ResourceNotFoundException"}
	}

	switch operation {
	case "DescribeTable":
		return map[string]any{"Table": map[string]any{
			"TableName": in.TableName, "TableStatus": "ACTIVE",
			"KeySchema": []map[string]string{{"AttributeName": table.key, "KeyType": "HASH"}},
		}}, nil
	case "Scan":
		return f.scan(table, in)
	}

	keyItem := in.Key
	if operation == "PutItem" {
		keyItem = dynamoItem{}
		if v, ok := in.Item[table.key]; ok {
			keyItem[table.key] = v
		}
	}
	key, err := table.keyOf(keyItem)
	if err != nil {
		return nil, err
	}
	old := table.items[key]
	if condition != nil && !condition(old) {
		failed := &dynamoError{code: "ConditionalCheckFailedException"}
		if in.ReturnValuesOnConditionCheckFailure == "ALL_OLD" {
			failed.item = old
		}
		return nil, failed
	}
	out := map[string]any{}
	if old == nil || operation == "DeleteItem" {
		table.order = nil
	}
	switch operation {
	case "GetItem":
		if stale, changed := table.stale[key]; changed && !in.ConsistentRead {
			old = stale
		}
		if old != nil {
			out["Item"] = old
		}
		return out, nil
	case "PutItem":
		for _, v := range in.Item {
			if err := v.check(); err != nil {
				return nil, err
			}
		}
		table.items[key] = in.Item
	case "DeleteItem":
		delete(table.items, key)
	case "UpdateItem":
		item := maps.Clone(old)
		if item == nil {
			item = maps.Clone(in.Key)
		}
		if err := update(item, table.key); err != nil {
			return nil, err
		}
		table.items[key] = item
		if in.ReturnValues == "ALL_NEW" {
			out["Attributes"] = item
		}
	default:
		return nil, &dynamoError{code: "UnknownOperationException"}
	}
	if in.ReturnValues == "ALL_OLD" && old != nil {
		out["Attributes"] = old
	}
	table.stale[key] = old
	return out, nil
}

func (f *DynamoDB) scan(table *dynamoTable, in dynamoRequest) (map[string]any, *dynamoError) {
	if table.order == nil {
		table.order = slices.Sorted(maps.Keys(table.items))
	}
	keys := table.order
	if in.TotalSegments != nil {
		if in.Segment == nil || *in.Segment < 0 || *in.Segment >= *in.TotalSegments || *in.TotalSegments > 256 {
			return nil, errValidation
		}
		// A range of the hashes.
		begin, _ := slices.BinarySearch(keys, fmt.Sprintf("%02x", *in.Segment*256 / *in.TotalSegments))
		end, _ := slices.BinarySearch(keys, fmt.Sprintf("%02x", (*in.Segment+1)*256 / *in.TotalSegments))
		if *in.Segment+1 == *in.TotalSegments {
			end = len(keys)
		}
		keys = keys[begin:end]
	}
	if in.ExclusiveStartKey != nil {
		after, err := table.keyOf(in.ExclusiveStartKey)
		if err != nil {
			return nil, err
		}
		next, _ := slices.BinarySearch(keys, after+"\x00")
		keys = keys[next:]
	}
	limit := f.pageSize
	if in.Limit != nil {
		limit = min(limit, *in.Limit)
	}
	out := map[string]any{}
	// As many as the limit: DynamoDB does not look whether there is another one.
	if len(keys) >= limit {
		keys = keys[:limit]
		out["LastEvaluatedKey"] = dynamoItem{table.key: table.items[keys[limit-1]][table.key]}
	}
	items := []dynamoItem{}
	for _, k := range keys {
		items = append(items, table.items[k])
	}
	out["Items"], out["Count"], out["ScannedCount"] = items, len(items), len(items)
	return out, nil
}

// keyOf returns the hash of an item's key, which is a string and not empty. DynamoDB, too, keeps
// items by a hash of the key, and so does not list them in the order of their keys.
func (t *dynamoTable) keyOf(item dynamoItem) (string, *dynamoError) {
	var s string
	if len(item) != 1 || json.Unmarshal(item[t.key]["S"], &s) != nil || s == "" {
		return "", errValidation
	}
	return fmt.Sprintf("%x", sha256.Sum256([]byte(s))), nil
}

func (v dynamoValue) check() *dynamoError {
	if len(v) != 1 {
		return errValidation
	}
	for kind, raw := range v {
		switch kind {
		case "S":
			var s string
			if json.Unmarshal(raw, &s) != nil {
				return &dynamoError{code: "SerializationException"}
			}
		case "N":
			var s string
			if json.Unmarshal(raw, &s) != nil {
				return &dynamoError{code: "SerializationException"}
			}
			if _, err := strconv.ParseFloat(s, 64); err != nil {
				return errValidation
			}
		case "M":
			var m map[string]dynamoValue
			if json.Unmarshal(raw, &m) != nil {
				return &dynamoError{code: "SerializationException"}
			}
			for _, v := range m {
				if err := v.check(); err != nil {
					return err
				}
			}
		default:
			return errValidation
		}
	}
	return nil
}

// dynamoNames reads expressions: it resolves #names and :values, and refuses
// reserved words, unknown ones and unused ones.
type dynamoNames struct {
	in         dynamoRequest
	usedNames  map[string]bool
	usedValues map[string]bool
}

var attributeNames = regexp.MustCompile(`^[A-Za-z_]`)

// Some of the 573 words that DynamoDB reserves: those that are close at hand.
var reservedWords = regexp.MustCompile(`(?i)^(name|names|key|keys|type|size|status|write|read|date|time` +
	`|timestamp|user|users|value|values|role|state|hash|url|owner|order|group|comment|data|file|index|count|token` +
	`|version|year|zone|set|remove|add|delete)$`)

var expressionTokens = regexp.MustCompile(`[A-Za-z_][A-Za-z0-9_]*|#[A-Za-z0-9_]+|:[A-Za-z0-9_]+|<=|>=|<>|[(),=<>]|\S`)

func (n *dynamoNames) path(token string) (string, *dynamoError) {
	if strings.HasPrefix(token, "#") {
		name, ok := n.in.ExpressionAttributeNames[token]
		if !ok {
			return "", errValidation
		}
		n.usedNames[token] = true
		return name, nil
	}
	if !attributeNames.MatchString(token) || reservedWords.MatchString(token) {
		return "", errValidation
	}
	return token, nil
}

func (n *dynamoNames) value(token string) (dynamoValue, *dynamoError) {
	v, ok := n.in.ExpressionAttributeValues[token]
	if !ok {
		return nil, errValidation
	}
	n.usedValues[token] = true
	return v, v.check()
}

func (n *dynamoNames) unused() *dynamoError {
	if len(n.usedNames) != len(n.in.ExpressionAttributeNames) ||
		len(n.usedValues) != len(n.in.ExpressionAttributeValues) {
		return errValidation
	}
	return nil
}

// A dynamoPath leads to an attribute of an item, or of a map in it.
type dynamoPath []string

func (p dynamoPath) get(item dynamoItem) dynamoValue {
	v := item[p[0]]
	for _, name := range p[1:] {
		var m map[string]dynamoValue
		if json.Unmarshal(v["M"], &m) != nil {
			return nil
		}
		v = m[name]
	}
	return v
}

// nested reads a path such as avatar.#key and returns the tokens behind it.
func (n *dynamoNames) nested(tokens []string) (dynamoPath, []string, *dynamoError) {
	var path dynamoPath
	for len(tokens) > 0 {
		name, err := n.path(tokens[0])
		if err != nil {
			return nil, nil, err
		}
		path = append(path, name)
		if tokens = tokens[1:]; len(tokens) == 0 || tokens[0] != "." {
			return path, tokens, nil
		}
		tokens = tokens[1:]
	}
	return nil, nil, errValidation
}

// condition understands attribute_exists(path), attribute_not_exists(path),
// path = :value and path IN (:value, …), each perhaps behind NOT, joined by AND.
func (n *dynamoNames) condition(expression *string) (func(dynamoItem) bool, *dynamoError) {
	if expression == nil {
		return nil, nil
	}
	var terms []func(dynamoItem) bool
	tokens := expressionTokens.FindAllString(*expression, -1)
	for {
		if len(tokens) < 3 {
			return nil, errValidation
		}
		negated := tokens[0] == "NOT"
		if negated {
			tokens = tokens[1:]
		}
		if function := tokens[0]; function == "attribute_exists" || function == "attribute_not_exists" {
			path, rest, err := n.nested(tokens[2:])
			if err != nil {
				return nil, err
			}
			if tokens[1] != "(" || len(rest) == 0 || rest[0] != ")" {
				return nil, errValidation
			}
			tokens = rest[1:]
			terms = append(terms, func(item dynamoItem) bool {
				return (path.get(item) != nil) == (function == "attribute_exists")
			})
		} else {
			path, rest, err := n.nested(tokens)
			if err != nil {
				return nil, err
			}
			if len(rest) < 2 || rest[0] != "=" && rest[0] != "IN" {
				return nil, errValidation
			}
			operands := rest[1:2]
			tokens = rest[2:]
			if rest[0] == "IN" {
				end := slices.Index(rest, ")")
				if end < 3 || end > 2*100+1 || rest[1] != "(" {
					return nil, errValidation
				}
				operands = strings.Split(strings.Join(rest[2:end], ""), ",")
				tokens = rest[end+1:]
			}
			var values []dynamoValue
			for _, operand := range operands {
				want, err := n.value(operand)
				if err != nil {
					return nil, err
				}
				values = append(values, want)
			}
			terms = append(terms, func(item dynamoItem) bool {
				got := path.get(item)
				return slices.ContainsFunc(values, func(want dynamoValue) bool { return reflect.DeepEqual(got, want) })
			})
		}
		if negated {
			term := terms[len(terms)-1]
			terms[len(terms)-1] = func(item dynamoItem) bool { return !term(item) }
		}
		if len(tokens) == 0 {
			return func(item dynamoItem) bool {
				return !slices.ContainsFunc(terms, func(holds func(dynamoItem) bool) bool { return !holds(item) })
			}, nil
		}
		if tokens[0] != "AND" {
			return nil, errValidation
		}
		tokens = tokens[1:]
	}
}

// update understands SET path = :value, path = path, … and REMOVE path, …
func (n *dynamoNames) update(expression *string) (func(item dynamoItem, key string) *dynamoError, *dynamoError) {
	if expression == nil {
		return func(dynamoItem, string) *dynamoError { return nil }, nil
	}
	set, remove, from := map[string]dynamoValue{}, []string{}, map[string]dynamoPath{}
	tokens := expressionTokens.FindAllString(*expression, -1)
	seen := map[string]bool{}
	for len(tokens) > 0 {
		clause := strings.ToUpper(tokens[0])
		if clause != "SET" && clause != "REMOVE" || seen[clause] {
			return nil, errValidation
		}
		seen[clause] = true
		for more := true; more; {
			if len(tokens) < 2 {
				return nil, errValidation
			}
			path, err := n.path(tokens[1])
			if err != nil {
				return nil, err
			}
			if seen["path "+path] {
				return nil, errValidation
			}
			seen["path "+path] = true
			tokens = tokens[2:]
			if clause == "REMOVE" {
				remove = append(remove, path)
			} else {
				if len(tokens) < 2 || tokens[0] != "=" {
					return nil, errValidation
				}
				if strings.HasPrefix(tokens[1], ":") {
					set[path], err = n.value(tokens[1])
					tokens = tokens[2:]
				} else {
					from[path], tokens, err = n.nested(tokens[1:])
				}
				if err != nil {
					return nil, err
				}
			}
			more = len(tokens) > 0 && tokens[0] == ","
		}
	}
	if len(seen) == 0 {
		return nil, errValidation
	}
	return func(item dynamoItem, key string) *dynamoError {
		if seen["path "+key] {
			return errValidation
		}
		for path, other := range from { // the values are those before the update
			if item[path] = other.get(item); item[path] == nil {
				return errValidation
			}
		}
		maps.Copy(item, set)
		for _, path := range remove {
			delete(item, path)
		}
		return nil
	}, nil
}

// checkAuthorization looks only at what a fake can know: whether a request is
// signed, and with the time of today. It returns "missing" or "skew".
func checkAuthorization(r *http.Request, now time.Time) string {
	if !strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential=") {
		return "missing"
	}
	signed, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if err != nil {
		return "missing"
	}
	if now.Sub(signed).Abs() > 15*time.Minute {
		return "skew"
	}
	return ""
}

func bufferBody(r *http.Request) []byte {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	r.Body = io.NopCloser(bytes.NewReader(b))
	return b
}
