from analyses.cli import main

main()
