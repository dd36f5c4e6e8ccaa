package journal

import (
	"errors"
	"fmt"
	"os"

	"go.etcd.io/bbolt"
)

// undo is what journal.db was before a transaction that failed on the disk.
//
// When fdatasync fails, the kernel drops what it could not write and calls the pages clean: what is read back is the page
// cache, and proves nothing. bbolt writes the new pages of a transaction into free ones, syncs, writes one of its two
// meta pages, the one that the transaction's number chooses, and syncs again. When the second sync fails, the
// transaction stays in the page cache, and may or may not be on the disk; bbolt would build on it (etcd-io/bbolt#233). So
// the meta page is written back as it was, and synced. All other pages of the transaction are free then, and a page that
// is used again is written and synced again.
//
// A sync that fails leaves nothing else open: what earlier transactions wrote was synced, and the events of the failed
// one are still in the log, which takes no new cycle before a transaction succeeded.
type undo struct {
	page []byte // the meta page, as it was
	at   int64
	// closed says that the meta page is back on the disk, and the file is to be opened again.
	closed bool
}

// transact runs a transaction. When it fails on the disk, b.undo says how to go back: nothing may be written before
// restore did that. An error of change itself leaves nothing behind.
func (b *Bolt) transact(change func(tx *bbolt.Tx) error) error {
	var before *undo
	var refused error
	err := b.db.Update(func(tx *bbolt.Tx) error {
		if before, refused = b.metaPage(tx); refused != nil {
			return refused
		}
		refused = change(tx)
		return refused
	})
	if err == nil && b.syncFault != nil {
		err = b.syncFault()
	}
	if err != nil && refused == nil {
		b.undo = before
	}
	return err
}

// metaPage reads the meta page that a transaction will write over.
func (b *Bolt) metaPage(tx *bbolt.Tx) (*undo, error) {
	size := b.db.Info().PageSize
	u := &undo{page: make([]byte, size), at: int64(tx.ID()%2) * int64(size)}
	if _, err := b.dbFile.ReadAt(u.page, u.at); err != nil {
		return nil, fmt.Errorf("read a meta page: %w", err)
	}
	return u, nil
}

// restore undoes a transaction that failed on the disk, and rebuilds what is in memory from the file and the events that
// only the log has. It is called by the committing goroutine, while no transaction is under way.
func (b *Bolt) restore() error {
	if b.undo == nil {
		return nil
	}
	if !b.undo.closed {
		_, err := b.dbFile.WriteAt(b.undo.page, b.undo.at)
		if err == nil {
			err = b.dbFile.Sync()
		}
		if err == nil && b.syncFault != nil {
			err = b.syncFault()
		}
		if err != nil {
			return fmt.Errorf("undo a transaction that failed: %w", err)
		}
	}
	if err := b.reopen(); err != nil {
		return err
	}
	b.undo = nil
	b.log.Warn("a transaction of the journal that failed on the disk was undone", "file", b.file)
	return nil
}

// reopen opens journal.db again, which takes bbolt's view of it from the file. Readers wait.
func (b *Bolt) reopen() error {
	b.opening.Lock()
	defer b.opening.Unlock()
	if !b.undo.closed {
		b.undo.closed = true // its lock is gone: nothing may be written until it is open again
		if err := b.db.Close(); err != nil {
			return fmt.Errorf("close the journal %s to open it again: %w", b.file, err)
		}
	}
	db, file, err := openDB(b.file)
	if err != nil {
		return fmt.Errorf("open the journal %s again: %w", b.file, err)
	}
	before := b.checkpointed
	b.db, b.dbFile = db, file
	read, err := b.load()
	if err == nil && read.LastSeq != before {
		err = &DamagedError{File: b.file, Err: fmt.Errorf("expected that it ends with event %d, as it did before a transaction failed, got %d: stop the receiver", before, read.LastSeq)}
	}
	if err != nil {
		return errors.Join(err, db.Close())
	}
	for i := range b.pending {
		if e := &b.pending[i]; e.key != nil {
			b.repeats.add(*e.key, e.first)
		}
	}
	return nil
}

// openDB opens a bbolt file, and returns the file that bbolt uses, too.
func openDB(name string) (db *bbolt.DB, file *os.File, err error) {
	defer func() {
		if r := recover(); r != nil { // bbolt panics on some damaged files
			err = &DamagedError{File: name, Err: fmt.Errorf("%v", r)}
		}
	}()
	db, err = bbolt.Open(name, fileMode, &bbolt.Options{
		Timeout: lockPoll, FreelistType: bbolt.FreelistMapType,
		NoFreelistSync: true, // it is made here, and written by an ordered end alone: it may be long
		OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
			opened, err := os.OpenFile(name, flag, mode)
			file = opened
			return opened, err
		},
	})
	return db, file, err
}
