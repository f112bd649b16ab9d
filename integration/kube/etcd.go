package main

import (
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/wal"
)

// serveEtcd runs a store of one member until SIGTERM.
func serveEtcd(arguments []string) {
	flags := flag.NewFlagSet("serve-etcd", flag.ExitOnError)
	data := flags.String("data", "", "directory that keeps everything")
	port := flags.Int("port", 0, "port for clients, on loopback")
	peerPort := flags.Int("peer-port", 0, "port for peers, of which there are none")
	forget := flags.Bool("forget", false, "remove the directory when the input ends")
	flags.Parse(arguments)
	go endWithInput(func() {
		// The API server ends at the same moment and may still write a line: a second look finds what it made.
		for tries := 0; *forget && tries < 10 && os.RemoveAll(*data) != nil; tries++ {
			time.Sleep(50 * time.Millisecond)
		}
	})

	// Space is taken in advance, two segments for each of many stores: a few megabytes will do.
	wal.SegmentSizeBytes = 4 << 20
	config := embed.NewConfig()
	config.Dir = filepath.Join(*data, "etcd")
	config.LogLevel = "error"
	// A test's store need not survive a power cut; it does survive kill -9 of the server.
	config.UnsafeNoFsync = true
	clients := []url.URL{loopback(*port)}
	peers := []url.URL{loopback(*peerPort)}
	config.ListenClientUrls, config.AdvertiseClientUrls = clients, clients
	config.ListenPeerUrls, config.AdvertisePeerUrls = peers, peers
	config.InitialCluster = config.InitialClusterFromName(config.Name)

	store, err := embed.StartEtcd(config)
	if err != nil {
		fatal("starting etcd", err)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	select {
	case <-stop:
		store.Close()
	case err := <-store.Err():
		fatal("running etcd", err)
	}
}

func loopback(port int) url.URL {
	return url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", port)}
}
