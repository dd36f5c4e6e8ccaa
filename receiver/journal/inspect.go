package journal

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// The layout of a bbolt file, version 2 (go.etcd.io/bbolt: internal/common page.go, meta.go, bucket.go).
const (
	boltMagic      = 0xED0CDAED
	boltVersion    = 2
	pageHeader     = 16
	metaSize       = 64
	branchElement  = 16
	leafElement    = 16
	flagBranch     = 0x01
	flagLeaf       = 0x02
	flagMeta       = 0x04
	flagFreelist   = 0x10
	leafIsBucket   = 0x01
	bucketHeader   = 16
	maxBucketDepth = 4
	maxPageSize    = 1 << 20
)

// inspector reads a bbolt file without bbolt, which trusts its pages: it bounds every read, visits no
// page twice, and goes on after damage, so that what is whole can be told from what is not.
type inspector struct {
	file     *os.File
	size     int64
	pageSize int64
	pages    uint64 // below which all pages in use are
	only     string // the bucket to look at; empty: all
	visit    func(bucket [][]byte, key, value []byte)
	damage   []string
	used     []bool // by page
	counted  uint64 // of used

	transaction uint64 // the last one
}

// maxDamage is how many places of damage are named.
const maxDamage = 100

func (in *inspector) damaged(format string, args ...any) {
	if len(in.damage) < maxDamage {
		in.damage = append(in.damage, fmt.Sprintf(format, args...))
	}
}

// inspection is what inspect found beside the keys.
type inspection struct {
	damage      []string
	transaction uint64 // the last one
}

// inspect visits every key of a bbolt file that can be read, and names what is damaged. The error is
// that of the disk, or says that nothing can be read at all. With the name of a bucket it looks at that one alone.
func inspect(name, only string, visit func(bucket [][]byte, key, value []byte)) (found inspection, err error) {
	file, err := os.Open(name)
	if err != nil {
		return found, fmt.Errorf("open the journal: %w", err)
	}
	defer func() { _ = file.Close() }() // it was only read
	info, err := file.Stat()
	if err != nil {
		return found, fmt.Errorf("open the journal: %w", err)
	}
	in := &inspector{file: file, size: info.Size(), only: only, visit: visit}
	root, freelist, err := in.metas()
	if err == nil {
		in.used = make([]bool, in.pages)
		for meta := range min(in.pages, 2) {
			in.use(meta)
		}
		in.tree(root, nil, nil, nil)
		if only == "" {
			in.free(freelist)
		}
	}
	return inspection{damage: in.damage, transaction: in.transaction}, err
}

// metas reads the two meta pages. The valid one of the later transaction counts; that both are valid
// is part of a whole file, since a page of this size is written as one.
func (in *inspector) metas() (root, freelist uint64, err error) {
	var best uint64
	found := false
	for _, at := range []int64{0, in.secondMeta()} {
		page := make([]byte, pageHeader+metaSize)
		if _, err := in.file.ReadAt(page, at); err != nil {
			in.damaged("the meta page at byte %d cannot be read: %v", at, err)
			continue
		}
		meta := page[pageHeader:]
		sum := fnv.New64a()
		_, _ = sum.Write(meta[:metaSize-8]) // never fails
		if binary.LittleEndian.Uint32(meta) != boltMagic || binary.LittleEndian.Uint32(meta[4:]) != boltVersion ||
			binary.LittleEndian.Uint64(meta[metaSize-8:]) != sum.Sum64() || binary.LittleEndian.Uint16(page[8:]) != flagMeta {
			in.damaged("the meta page at byte %d is not whole: the last transaction may be missing", at)
			continue
		}
		if txid := binary.LittleEndian.Uint64(meta[48:]); !found || txid > best {
			found, best, in.transaction = true, txid, txid
			in.pageSize = int64(binary.LittleEndian.Uint32(meta[8:]))
			root, freelist, in.pages = binary.LittleEndian.Uint64(meta[16:]), binary.LittleEndian.Uint64(meta[32:]), binary.LittleEndian.Uint64(meta[40:])
		}
	}
	if !found || in.pageSize < 512 || in.pageSize > maxPageSize {
		return 0, 0, fmt.Errorf("neither meta page can be read: this is no journal, or its beginning is lost")
	}
	if there := uint64(in.size / in.pageSize); in.pages > there {
		in.damaged("the file has %d pages, and should have %d", there, in.pages)
		in.pages = there
	}
	return root, freelist, nil
}

// use notes that a page is used, and says whether it was not before.
func (in *inspector) use(id uint64) bool {
	if in.used[id] {
		return false
	}
	in.used[id] = true
	in.counted++
	return true
}

// secondMeta is where the second meta page begins: the first one says how long a page is or, when it is
// damaged, the page size of this system does.
func (in *inspector) secondMeta() int64 {
	head := make([]byte, pageHeader+12)
	if _, err := in.file.ReadAt(head, 0); err == nil && binary.LittleEndian.Uint32(head[pageHeader:]) == boltMagic {
		if size := int64(binary.LittleEndian.Uint32(head[pageHeader+8:])); size >= 512 && size <= maxPageSize {
			return size
		}
	}
	return int64(os.Getpagesize())
}

// page reads a page, with those that it overflows into.
func (in *inspector) page(id uint64) (data []byte, ok bool) {
	if id >= in.pages || in.used[id] {
		in.damaged("page %d is not one, or is used twice", id)
		return nil, false
	}
	head := make([]byte, pageHeader)
	at := int64(id) * in.pageSize
	if _, err := in.file.ReadAt(head, at); err != nil {
		in.damaged("page %d cannot be read: %v", id, err)
		return nil, false
	}
	overflow := uint64(binary.LittleEndian.Uint32(head[12:]))
	if binary.LittleEndian.Uint64(head) != id || id+overflow >= in.pages {
		in.damaged("page %d says that it is another one", id)
		return nil, false
	}
	for i := id; i <= id+overflow; i++ {
		if !in.use(i) {
			in.damaged("page %d is used twice", i)
			return nil, false
		}
	}
	data = make([]byte, int64(overflow+1)*in.pageSize)
	if _, err := io.ReadFull(io.NewSectionReader(in.file, at, int64(len(data))), data); err != nil {
		in.damaged("page %d cannot be read: %v", id, err)
		return nil, false
	}
	return data, true
}

// tree visits a tree of pages, whose keys lie from low on and before high (nil: without a bound).
func (in *inspector) tree(id uint64, bucket [][]byte, low, high []byte) {
	if data, ok := in.page(id); ok {
		in.node(fmt.Sprintf("page %d", id), data, bucket, low, high)
	}
}

// node visits what is on a page, or in a bucket that is stored inside its parent.
func (in *inspector) node(where string, data []byte, bucket [][]byte, low, high []byte) {
	kind, count := binary.LittleEndian.Uint16(data[8:]), int(binary.LittleEndian.Uint16(data[10:]))
	if kind != flagBranch && kind != flagLeaf {
		in.damaged("%s has the flags %#x: neither a branch nor a leaf", where, kind)
		return
	}
	if pageHeader+count*leafElement > len(data) {
		in.damaged("%s says that it has %d entries, more than fit", where, count)
		return
	}
	previous := low
	begin := pageHeader + count*leafElement // of the next key: bbolt leaves no gaps, so an entry that is not counted shows
	for i := range count {
		element := pageHeader + i*leafElement
		key, rest, ok := in.key(data, element, kind)
		if !ok || !inPlace(key, previous, high, i > 0) || len(data)-len(rest)-len(key) != begin {
			in.damaged("%s: entry %d is not in its place", where, i)
			return
		}
		if begin += len(key); kind == flagLeaf {
			begin += int(binary.LittleEndian.Uint32(data[element+12:]))
		}
		previous = key
		if kind == flagLeaf {
			in.leaf(where, data[element:], bucket, key, rest)
			continue
		}
		next := high
		if i+1 < count {
			if next, _, ok = in.key(data, element+branchElement, kind); !ok {
				next = high // the next round names it
			}
		}
		in.tree(binary.LittleEndian.Uint64(data[element+8:]), bucket, key, next)
	}
}

// inPlace is whether a key follows the one before it and lies before the bound. The first key of a page
// may be the bound that its parent gives.
func inPlace(key, previous, high []byte, after bool) bool {
	order := bytes.Compare(key, previous)
	return len(key) > 0 && (order > 0 || order == 0 && !after) && (high == nil || bytes.Compare(key, high) < 0)
}

// key reads the key of an element; rest is what follows it on the page.
func (in *inspector) key(data []byte, element int, kind uint16) (key, rest []byte, ok bool) {
	position, size := binary.LittleEndian.Uint32(data[element:]), binary.LittleEndian.Uint32(data[element+4:])
	if kind == flagLeaf {
		position, size = binary.LittleEndian.Uint32(data[element+4:]), binary.LittleEndian.Uint32(data[element+8:])
	}
	begin := int64(element) + int64(position)
	if begin > int64(len(data)) || begin+int64(size) > int64(len(data)) {
		return nil, nil, false
	}
	return data[begin : begin+int64(size)], data[begin+int64(size):], true
}

// leaf visits one entry of a leaf: a value, or a bucket.
func (in *inspector) leaf(where string, element []byte, bucket [][]byte, key, rest []byte) {
	flags, size := binary.LittleEndian.Uint32(element), int64(binary.LittleEndian.Uint32(element[12:]))
	if size > int64(len(rest)) || flags > leafIsBucket {
		in.damaged("%s: the value of an entry is not on it", where)
		return
	}
	value := rest[:size]
	if flags == 0 {
		in.visit(bucket, key, value)
		return
	}
	if len(value) < bucketHeader || len(bucket) == maxBucketDepth {
		in.damaged("%s: a bucket is not whole", where)
		return
	}
	if in.only != "" && len(bucket) == 0 && string(key) != in.only {
		return
	}
	inside := append(bucket[:len(bucket):len(bucket)], key)
	if root := binary.LittleEndian.Uint64(value); root != 0 {
		in.tree(root, inside, nil, nil)
		return
	}
	if len(value) < bucketHeader+pageHeader {
		in.damaged("%s: a bucket is not whole", where)
		return
	}
	in.node(where, value[bucketHeader:], inside, nil, nil)
}

// noFreelist stands in a meta page for a list of free pages that is made when the file is opened.
const noFreelist = ^uint64(0)

// free holds the list of free pages against those in use: a page in both would be written over. Where the
// list is not kept, what is not in use is free.
func (in *inspector) free(id uint64) {
	if id == noFreelist {
		return
	}
	data, ok := in.page(id)
	if !ok {
		return
	}
	if binary.LittleEndian.Uint16(data[8:]) != flagFreelist {
		in.damaged("page %d is not the list of free pages", id)
		return
	}
	count, at := uint64(binary.LittleEndian.Uint16(data[10:])), pageHeader
	if count == 0xFFFF { // more than fit: the first entry is the count
		count, at = binary.LittleEndian.Uint64(data[at:]), at+8
	}
	if count > uint64(len(data)-at)/8 {
		in.damaged("the list of free pages says that it has %d entries, more than fit", count)
		return
	}
	for i := range count {
		free := binary.LittleEndian.Uint64(data[at+int(i)*8:])
		if free >= in.pages || !in.use(free) {
			in.damaged("page %d is free and in use, or free twice, or is none", free)
			return
		}
	}
	if in.counted != in.pages {
		in.damaged("%d of %d pages are neither free nor in use", in.pages-in.counted, in.pages)
	}
}
