package main

import (
	"fmt"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// BenchmarkCreate creates users from 32 clients at once: in the store's group
// commit, in bbolt's Batch, and in a transaction each.
func BenchmarkCreate(b *testing.B) {
	store, err := openLocal(b.TempDir(), newMetrics(build{}))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { store.Close() })
	db, err := bolt.Open(filepath.Join(b.TempDir(), "bare.db"), 0o600, nil)
	if err == nil {
		err = db.Update(func(tx *bolt.Tx) error {
			_, err := tx.CreateBucket(usersBucket)
			return err
		})
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { db.Close() })
	put := func(u User) func(*bolt.Tx) error {
		return func(tx *bolt.Tx) error { return tx.Bucket(usersBucket).Put([]byte(u.ID), encodeLocal(u)) }
	}
	for _, bench := range []struct {
		name   string
		create func(User) error
	}{
		{"roster", func(u User) error { return localUsers{store}.Create(b.Context(), u) }},
		{"Batch", func(u User) error { return db.Batch(put(u)) }},
		{"Update", func(u User) error { return db.Update(put(u)) }},
	} {
		var next atomic.Int64
		b.Run(bench.name, func(b *testing.B) {
			b.SetParallelism(max(1, 32/runtime.GOMAXPROCS(0)))
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := bench.create(testUser(fmt.Sprintf("user%d@example.com", next.Add(1)))); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
