# The attempts of breakouts.yaml know these.
dial() { # dial ADDRESS:PORT
  if timeout 5 bash -c "exec 3<>/dev/tcp/${1%:*}/${1##*:}" 2>/dev/null; then echo open; else echo closed; fi
}

lookup() { # lookup SERVER:PORT: asks by-dns.ostler.test over UDP
  perl -MSocket -e '
    socket(my $s, AF_INET, SOCK_DGRAM, 0); my ($host, $port) = split /:/, shift;
    my $to = sockaddr_in($port, inet_aton($host));
    my $query = pack("nnnnnn", 7, 256, 1, 0, 0, 0) . join("", map { pack("C/a", $_) } qw(by-dns ostler test)) . pack("Cnn", 0, 1, 1);
    for (1 .. 5) {
      send($s, $query, 0, $to);
      my $ready = ""; vec($ready, fileno($s), 1) = 1;
      if (select($ready, undef, undef, 1) > 0 && defined recv($s, my $answer, 512, 0)) { print "open\n"; exit }
    }
    print "closed\n"' "$1"
}

ask() { # ask ADDRESS:PORT
  exec 7<>/dev/tcp/127.0.0.1/3128
  printf 'CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n' "$1" "$1" >&7
  local said
  read -r -t 20 said <&7
  echo "$1 $said"
  exec 7>&-
}

system() { # system NAME NUMBER ARGUMENT...
  perl -e 'my ($name, @call) = @ARGV; print "$name: ", syscall(shift @call, map { $_ + 0 } @call) < 0 ? "$!\n" : "done\n"' "$@"
}
