# Tests of the command line run the binary itself.
add_dependencies(test_launcher shoestring)
