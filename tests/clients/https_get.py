"""One request over TLS, verified: https_get.py ADDR PORT HOST PATH ROOTS

ROOTS is a PEM file. Prints a JSON object: common name and DNS names of the server's certificate, status and body.
"""
import http.client
import json
import socket
import ssl
import sys

addr, port, host, path, roots = sys.argv[1:]
context = ssl.create_default_context(cafile=roots)
with socket.create_connection((addr, int(port)), timeout=10) as tcp, context.wrap_socket(tcp, server_hostname=host) as tls:
    certificate = tls.getpeercert()
    tls.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    response = http.client.HTTPResponse(tls)
    response.begin()
    body = response.read().decode()
common_names = [value for part in certificate["subject"] for key, value in part if key == "commonName"]
names = [value for kind, value in certificate["subjectAltName"] if kind == "DNS"]
print(json.dumps({"common_name": common_names[0], "names": names, "status": response.status, "body": body}))
