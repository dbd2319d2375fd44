package socket_test

const isLinux = true
