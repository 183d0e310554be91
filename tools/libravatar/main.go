// Command libravatar prints where a client of Libravatar finds the picture of an email on a server.
//
//	libravatar HOST EMAIL
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"strk.kbt.io/projects/go/libravatar"
)

func main() {
	// The client looks for the avatar server of the email's domain first. No query leaves this machine.
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("no DNS")
	}}
	client := libravatar.New()
	client.SetFallbackHost(os.Args[1])
	client.SetAvatarSize(80)
	url, err := client.FromEmail(os.Args[2])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(url)
}
