// Command probe is the whole content of an image: it answers on ports, and says which ports of others answer.
//
//	probe serve tcp:8080 udp:8081 ...   answers on those ports of all addresses, until it is ended; one line for each
//	                                    connection, "tcp:8080 from ADDRESS"
//	probe dial [-within 2s] tcp:10.0.0.1:8080 udp:10.0.0.1:8081 ...
//	                                    tries all at once; one line for each, "open TARGET" or "closed TARGET WHY"
//	probe cat FILE ...                  writes the files to standard output
//	probe env                           writes the environment
//	probe echo                          copies standard input to standard output
//	probe wait                          does nothing until it is ended
//	probe eat MEGABYTES                 uses that much memory, then does nothing
//	probe exit CODE                     ends with that code
package main

import (
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) < 2 {
		fail("usage: probe serve|dial|cat|env|echo|wait|eat|exit ...")
	}
	arguments := os.Args[2:]
	switch os.Args[1] {
	case "serve":
		serve(arguments)
	case "dial":
		dial(arguments)
	case "cat":
		cat(arguments)
	case "env":
		for _, variable := range os.Environ() {
			fmt.Println(variable)
		}
	case "echo":
		if _, err := io.Copy(os.Stdout, os.Stdin); err != nil {
			fail("%v", err)
		}
	case "wait":
		wait()
	case "eat":
		eat(number(arguments))
	case "exit":
		os.Exit(number(arguments))
	default:
		fail("unknown: %s", os.Args[1])
	}
}

func fail(format string, values ...any) {
	fmt.Fprintf(os.Stderr, "probe: "+format+"\n", values...)
	os.Exit(2)
}

func number(arguments []string) int {
	if len(arguments) != 1 {
		fail("one number is needed")
	}
	n, err := strconv.Atoi(arguments[0])
	if err != nil {
		fail("%v", err)
	}
	return n
}

func wait() {
	ends := make(chan os.Signal, 1)
	signal.Notify(ends, syscall.SIGINT, syscall.SIGTERM)
	<-ends
}

func cat(files []string) {
	for _, name := range files {
		content, err := os.ReadFile(name)
		if err != nil {
			fail("%v", err)
		}
		os.Stdout.Write(content)
	}
}

func eat(megabytes int) {
	var eaten [][]byte
	for range megabytes {
		mouthful := make([]byte, 1<<20)
		for i := 0; i < len(mouthful); i += 4096 {
			mouthful[i] = 1
		}
		eaten = append(eaten, mouthful)
	}
	wait()
	fmt.Println(len(eaten))
}

// split takes tcp:8080 or tcp:10.0.0.1:8080 apart.
func split(target string) (protocol, address string) {
	protocol, address, found := strings.Cut(target, ":")
	if !found || (protocol != "tcp" && protocol != "udp") {
		fail("not tcp:… or udp:…: %s", target)
	}
	return protocol, address
}

func serve(ports []string) {
	for _, target := range ports {
		protocol, port := split(target)
		if protocol == "tcp" {
			listener, err := net.Listen("tcp", ":"+port)
			if err != nil {
				fail("%v", err)
			}
			go serveTCP(listener, target)
		} else {
			socket, err := net.ListenPacket("udp", ":"+port)
			if err != nil {
				fail("%v", err)
			}
			go serveUDP(socket)
		}
	}
	fmt.Println("serving")
	wait()
}

// serveTCP says of each caller where it comes from, as somebody may count them.
func serveTCP(listener net.Listener, name string) {
	for {
		connection, err := listener.Accept()
		if err != nil {
			fail("%v", err)
		}
		fmt.Println(name, "from", connection.RemoteAddr())
		fmt.Fprintf(connection, "hello %s\n", connection.RemoteAddr())
		connection.Close()
	}
}

func serveUDP(socket net.PacketConn) {
	buffer := make([]byte, 2048)
	for {
		_, from, err := socket.ReadFrom(buffer)
		if err != nil {
			fail("%v", err)
		}
		socket.WriteTo([]byte("hello "+from.String()+"\n"), from)
	}
}

func dial(arguments []string) {
	flags := flag.NewFlagSet("dial", flag.ExitOnError)
	within := flags.Duration("within", 2*time.Second, "how long to wait for an answer")
	flags.Parse(arguments)
	targets := flags.Args()
	errors := make([]error, len(targets))
	var all sync.WaitGroup
	for i, target := range targets {
		protocol, address := split(target)
		all.Go(func() { errors[i] = answer(protocol, address, *within) })
	}
	all.Wait()
	for i, target := range targets {
		if errors[i] == nil {
			fmt.Println("open", target)
		} else {
			fmt.Println("closed", target, errors[i])
		}
	}
}

// answer is nil if a connection was made, or a datagram was answered. It may be lost, so it is sent again and again.
func answer(protocol, address string, within time.Duration) error {
	until := time.Now().Add(within)
	connection, err := net.DialTimeout(protocol, address, within)
	if err != nil {
		return err
	}
	defer connection.Close()
	if protocol == "tcp" {
		return nil
	}
	for {
		connection.Write([]byte("hello\n"))
		again := time.Now().Add(within / 4)
		connection.SetReadDeadline(again)
		_, err := connection.Read(make([]byte, 2048))
		if err == nil || time.Now().After(until) {
			return err
		}
		// Somebody may have said no at once: not a reason to ask faster.
		time.Sleep(time.Until(again))
	}
}
