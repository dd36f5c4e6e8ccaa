// Package faultdisk is a disk of the tests, mounted by FUSE: a sync can be had to fail as the kernel has it fail, and a
// power cut leaves what was synced.
//
// It has two contents of every file: what programs read, which is the page cache, and what is on the disk. A sync brings
// the one to the other. A sync that fails forgets which pages were to be written, and leaves them as they are in the page
// cache: that is what the kernel does with pages that it could not write.
package faultdisk

import (
	"context"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

const page = 4 << 10

// Disk is safe for concurrent use.
type Disk struct {
	mu     sync.Mutex
	root   *folder
	server *fuse.Server
	fail   func(name string, nth int) bool
	syncs  map[string]int // since Fail, by file
}

type folder struct {
	folders map[string]*folder
	files   map[string]*file
}

type file struct {
	name  string
	cache []byte
	disk  []byte
	dirty map[int]bool // pages of cache that are to be written
}

func newFolder() *folder { return &folder{folders: map[string]*folder{}, files: map[string]*file{}} }

// New makes an empty disk.
func New() *Disk { return &Disk{root: newFolder(), syncs: map[string]int{}} }

// Mount mounts it. The process that mounts a disk must not use it: that would wait for itself.
func (d *Disk) Mount(at string) (err error) {
	timeout := time.Hour
	d.server, err = fs.Mount(at, &folderNode{disk: d, folder: d.root}, &fs.Options{
		MountOptions: fuse.MountOptions{DirectMountStrict: true, Name: "faultdisk", FsName: "faultdisk"},
		EntryTimeout: &timeout, AttrTimeout: &timeout,
	})
	return err
}

// MountOnce mounts it and unmounts it: it says whether disks can be mounted here.
func (d *Disk) MountOnce(at string) error {
	if err := d.Mount(at); err != nil {
		return err
	}
	return d.Unmount()
}

// Unmount waits until nobody uses it any more.
func (d *Disk) Unmount() error { return d.server.Unmount() }

// PowerCut leaves what is on the disk alone. It must not be mounted.
func (d *Disk) PowerCut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.root.powerCut()
}

func (f *folder) powerCut() {
	for _, one := range f.folders {
		one.powerCut()
	}
	for _, one := range f.files {
		one.cache, one.dirty = append([]byte(nil), one.disk...), map[int]bool{}
	}
}

// Fail has syncs fail from now on, as which tells: of a file, counted from 1.
func (d *Disk) Fail(which func(name string, nth int) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = which
	clear(d.syncs)
}

// Syncs is how many syncs of a file there were since Fail.
func (d *Disk) Syncs(name string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.syncs[name]
}

// Change changes what is in a file, on the disk and off it. It must not be mounted.
func (d *Disk) Change(path string, change func(data []byte) []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	parts := strings.Split(path, "/")
	in := d.root
	for _, name := range parts[:len(parts)-1] {
		in = in.folders[name]
	}
	one := in.files[parts[len(parts)-1]]
	one.cache = change(one.cache)
	one.disk = append([]byte(nil), one.cache...)
}

func (f *file) write(data []byte, at int64) {
	if end := int(at) + len(data); end > len(f.cache) {
		f.cache = append(f.cache, make([]byte, end-len(f.cache))...)
	}
	copy(f.cache[at:], data)
	for p := int(at) / page; p*page < int(at)+len(data); p++ {
		f.dirty[p] = true
	}
}

func (f *file) truncate(size int) {
	if size < len(f.cache) {
		f.cache = f.cache[:size]
	} else {
		f.cache = append(f.cache, make([]byte, size-len(f.cache))...)
	}
}

// sync writes the dirty pages, or forgets them.
func (d *Disk) sync(f *file) syscall.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.syncs[f.name]++
	failed := d.fail != nil && d.fail(f.name, d.syncs[f.name])
	if !failed {
		if len(f.disk) > len(f.cache) {
			f.disk = f.disk[:len(f.cache)]
		}
		f.disk = append(f.disk, make([]byte, len(f.cache)-len(f.disk))...)
		for p := range f.dirty {
			if p*page < len(f.cache) {
				copy(f.disk[p*page:], f.cache[p*page:min((p+1)*page, len(f.cache))])
			}
		}
	}
	clear(f.dirty)
	if failed {
		return syscall.EIO
	}
	return 0
}

// folderNode is a folder as FUSE has it.
type folderNode struct {
	fs.Inode
	disk   *Disk
	folder *folder
}

var (
	_ fs.NodeLookuper  = (*folderNode)(nil)
	_ fs.NodeMkdirer   = (*folderNode)(nil)
	_ fs.NodeCreater   = (*folderNode)(nil)
	_ fs.NodeUnlinker  = (*folderNode)(nil)
	_ fs.NodeRenamer   = (*folderNode)(nil)
	_ fs.NodeStatfser  = (*folderNode)(nil)
	_ fs.NodeFsyncer   = (*folderNode)(nil)
	_ fs.NodeGetattrer = (*fileNode)(nil)
	_ fs.NodeSetattrer = (*fileNode)(nil)
	_ fs.NodeOpener    = (*fileNode)(nil)
	_ fs.NodeReader    = (*fileNode)(nil)
	_ fs.NodeWriter    = (*fileNode)(nil)
	_ fs.NodeFsyncer   = (*fileNode)(nil)
)

// Lookup implements fs.NodeLookuper.
func (n *folderNode) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	if f := n.folder.folders[name]; f != nil {
		return n.NewInode(ctx, &folderNode{disk: n.disk, folder: f}, fs.StableAttr{Mode: fuse.S_IFDIR}), 0
	}
	if f := n.folder.files[name]; f != nil {
		out.Size, out.Mode = uint64(len(f.cache)), 0o600
		return n.NewInode(ctx, &fileNode{disk: n.disk, file: f}, fs.StableAttr{Mode: fuse.S_IFREG}), 0
	}
	return nil, syscall.ENOENT
}

// Mkdir implements fs.NodeMkdirer.
func (n *folderNode) Mkdir(ctx context.Context, name string, _ uint32, _ *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	f := newFolder()
	n.folder.folders[name] = f
	return n.NewInode(ctx, &folderNode{disk: n.disk, folder: f}, fs.StableAttr{Mode: fuse.S_IFDIR}), 0
}

// Create implements fs.NodeCreater.
func (n *folderNode) Create(ctx context.Context, name string, _, _ uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	f := n.folder.files[name]
	if f == nil {
		f = &file{name: name, dirty: map[int]bool{}}
		n.folder.files[name] = f
	}
	out.Mode = 0o600
	return n.NewInode(ctx, &fileNode{disk: n.disk, file: f}, fs.StableAttr{Mode: fuse.S_IFREG}), nil, 0, 0
}

// Unlink implements fs.NodeUnlinker. It is on the disk at once.
func (n *folderNode) Unlink(_ context.Context, name string) syscall.Errno {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	delete(n.folder.files, name)
	return 0
}

// Rename implements fs.NodeRenamer. It is on the disk at once.
func (n *folderNode) Rename(_ context.Context, name string, to fs.InodeEmbedder, newName string, _ uint32) syscall.Errno {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	f, target := n.folder.files[name], to.(*folderNode)
	if f == nil {
		return syscall.ENOENT
	}
	delete(n.folder.files, name)
	f.name = newName
	target.folder.files[newName] = f
	return 0
}

// Statfs implements fs.NodeStatfser.
func (n *folderNode) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	out.Bsize, out.Frsize, out.Blocks, out.Bfree, out.Bavail = page, page, 1<<20, 1<<19, 1<<19
	return 0
}

// Fsync implements fs.NodeFsyncer: what is in a folder is on the disk already.
func (n *folderNode) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno { return 0 }

// fileNode is a file as FUSE has it.
type fileNode struct {
	fs.Inode
	disk *Disk
	file *file
}

// Getattr implements fs.NodeGetattrer.
func (n *fileNode) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	out.Size, out.Mode = uint64(len(n.file.cache)), 0o600
	return 0
}

// Setattr implements fs.NodeSetattrer.
func (n *fileNode) Setattr(_ context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	if size, ok := in.GetSize(); ok {
		n.file.truncate(int(size))
	}
	out.Size, out.Mode = uint64(len(n.file.cache)), 0o600
	return 0
}

// Open implements fs.NodeOpener.
func (n *fileNode) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_KEEP_CACHE, 0
}

// Read implements fs.NodeReader.
func (n *fileNode) Read(_ context.Context, _ fs.FileHandle, dest []byte, at int64) (fuse.ReadResult, syscall.Errno) {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	if at >= int64(len(n.file.cache)) {
		return fuse.ReadResultData(nil), 0
	}
	return fuse.ReadResultData(dest[:copy(dest, n.file.cache[at:])]), 0
}

// Write implements fs.NodeWriter.
func (n *fileNode) Write(_ context.Context, _ fs.FileHandle, data []byte, at int64) (uint32, syscall.Errno) {
	n.disk.mu.Lock()
	defer n.disk.mu.Unlock()
	n.file.write(data, at)
	return uint32(len(data)), 0
}

// Fsync implements fs.NodeFsyncer.
func (n *fileNode) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	return n.disk.sync(n.file)
}
