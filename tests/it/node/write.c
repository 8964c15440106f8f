/* What agents of small images execute: writes a file of one line, and says where, as whom, and who loaded it. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int count, char **words) {
	char line[4096], folder[1024];
	const char *loader = "nobody\n";
	FILE *file, *maps;
	if (count != 3)
		return 2;
	file = fopen(words[1], "w");
	if (!file || fprintf(file, "%s\n", words[2]) < 0 || fclose(file)) {
		perror(words[1]);
		return 1;
	}
	maps = fopen("/proc/self/maps", "r");
	while (maps && fgets(line, sizeof line, maps)) {
		char *path = strchr(line, '/');
		if (path && strstr(path, "ld-musl")) {
			loader = path;
			break;
		}
	}
	printf("in %s as %d, loaded by %s", getcwd(folder, sizeof folder), (int)getuid(), loader);
	return 0;
}
