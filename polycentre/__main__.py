from polycentre.command_line import main

main()
